"""The table as a person reads it, and the JSON that a program does."""

from __future__ import annotations

import json
import platform
import sqlite3
import sys
from collections.abc import Sequence

import msgspec
import psutil
from rich.console import Console
from rich.table import Table

from bench.measuring import Row

_SIGNS = {True: "[green]met[/]", False: "[red]missed[/]", None: "[yellow]skipped[/]"}


def machine() -> dict[str, object]:
    """What the numbers were measured on, without naming it."""
    return {
        "cpus": psutil.cpu_count(),
        "memory_gb": round(psutil.virtual_memory().total / 2**30),
        "system": platform.system(),
        "python": platform.python_version(),
        "sqlite": sqlite3.sqlite_version,
        "load": round(psutil.getloadavg()[0], 2),
    }


def print_json(rows: Sequence[Row]) -> None:
    """One object: `rows`, `machine`, and the names of the rows that missed or could not run."""
    whole = {
        "rows": [msgspec.to_builtins(row) for row in rows],
        "machine": machine(),
        "missed": [row.name for row in rows if row.ok is False],
        "skipped": [row.name for row in rows if row.ok is None],
    }
    sys.stdout.write(json.dumps(whole, ensure_ascii=False) + "\n")


def print_table(rows: Sequence[Row], console: Console) -> None:
    """The table, what its rows mean, and which targets were missed."""
    table = Table(title="Hilo, side by side")
    for heading in ("row", "data set", "ours", "peer", "ratio", "target", ""):
        right = heading in {"ours", "peer", "ratio", "target"}
        table.add_column(heading, justify="right" if right else "left")
    for row in rows:
        table.add_row(
            row.name,
            row.data_set,
            number(row.ours, row.unit),
            number(row.peer, row.unit),
            "" if row.ratio is None else f"{row.ratio:.2f} ×",
            target(row),
            _SIGNS[row.ok],
        )
    console.print(table)
    for name, text in legend(rows).items():
        console.print(f"  {name}: {text}", style="dim", markup=False)
    spec = ", ".join(f"{name} {value}" for name, value in machine().items())
    console.print(f"  {spec}", style="dim", markup=False)
    missed = dict.fromkeys(row.name for row in rows if row.ok is False)
    if missed:
        console.print(f"targets missed: {', '.join(missed)}", style="bold red", markup=False)


def legend(rows: Sequence[Row]) -> dict[str, str]:
    """What each name stands for, what it is compared with, its goal, and why it was skipped."""
    texts: dict[str, str] = {}
    for row in rows:
        against = f"against {row.peer_name}" if row.peer_name else ""
        parts = (row.skipped or row.what, against, _goal(row), row.notes)
        texts[row.name] = "; ".join(part for part in parts if part)
    return texts


def number(value: float | None, unit: str) -> str:
    """A number and its unit, with as many digits as it deserves."""
    if value is None:
        return ""
    digits = 0 if value >= 100 else 1 if value >= 10 else 2
    return f"{value:,.{digits}f} {unit}".strip()


def target(row: Row) -> str:
    """What was to be reached."""
    if row.target is None:
        return ""
    sign = "≥" if row.better == "higher" else "≤"
    if row.ratio is not None or row.peer_name:
        return f"{sign} {row.target:g} ×"
    return f"{sign} {row.target:g} {row.unit}"


def _goal(row: Row) -> str:
    if row.goal is None or row.ours is None:
        return ""
    reached = row.ours >= row.goal if row.better == "higher" else row.ours <= row.goal
    return f"goal {row.goal:,.0f} {row.unit}{' (reached)' if reached else ''}"

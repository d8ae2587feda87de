"""`python -m bench`, and what `hilo bench` calls: measure, print, and say what missed its target.

Exit codes: 0 all targets met, 1 one was missed, 2 wrong usage, 3 a peer could not run here (the
row is skipped and says why) and no target was missed.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from bench import report
from bench.datasets import DataSets
from bench.measuring import PeerMissing, Row
from bench.plan import FULL, Plan
from bench.rows import ROWS, Measure

DONE, MISSED, PEER_MISSING = 0, 1, 3


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure the rows that the arguments name (`sys.argv` by default); return an exit code."""
    options = _options(arguments)
    console = Console(stderr=True)
    with tempfile.TemporaryDirectory(prefix="hilo-bench-") as directory:

        def say(text: str) -> None:
            console.print(text, style="dim", markup=False)

        sets = DataSets(Path(directory), events=options.events, say=say)
        plan = Plan(sets, options.rounds, say)
        rows: list[Row] = []
        for name in options.only or ROWS:
            say(f"{name} …")
            rows += _measured(name, ROWS[name], plan)
    if options.json:
        report.print_json(rows)
    else:
        report.print_table(rows, Console())
    return exit_code(rows)


def exit_code(rows: Sequence[Row]) -> int:
    """0, 1 or 3: a missed target outweighs a missing peer."""
    if any(row.ok is False for row in rows):
        return MISSED
    return PEER_MISSING if any(row.ok is None for row in rows) else DONE


def _measured(name: str, measure: Measure, plan: Plan) -> Sequence[Row]:
    try:
        return measure(plan)
    except PeerMissing as missing:
        return [Row(name=name, what=name, skipped=str(missing))]


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="hilo bench", description=__doc__)
    parser.add_argument(
        "--only",
        action="append",
        choices=sorted(ROWS),
        metavar="NAME",  # or else a refusal names all of them twice
        help=f"this row; may be repeated: {', '.join(sorted(ROWS))}",
    )
    parser.add_argument("--events", type=_positive, default=FULL, help="events of the long log")
    parser.add_argument("--rounds", type=_positive, default=5, help="rounds of each comparison")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    return parser.parse_args(arguments)


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise ValueError
    return value


if __name__ == "__main__":
    sys.exit(main())

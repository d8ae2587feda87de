"""Imports point one way: api, jobs, cli → conversation → projections → aggregates → eventstore.

The house is drawn in the table MAY_IMPORT. A module belongs to the longest name in it that its own
name starts with; a module straight under `app` that the table does not name (`app.settings`) is a
*foundation*: anyone in `app` but the aggregates may use it, and it uses nothing above itself.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FOUNDATION = "app.*"

AGGREGATES = frozenset({"eventstore"})
PROJECTIONS = frozenset({"eventstore", "app.aggregates", FOUNDATION})
CONVERSATION = PROJECTIONS | {"app.projections"}
ENTRANCE = CONVERSATION | {"app.conversation"}
COMPOSED = ENTRANCE | {"app.api", "app.jobs"}
COMMANDS = COMPOSED | {
    *(
        "app.access",
        "app.bot",
        "app.control",
        "app.exports",
        "app.importing",
        "app.installation",
        "app.moves",
        "app.worker",
        "app.serving",
        "app.skips",
        "app.demo",
        "bench",
    ),
}

MAY_IMPORT: dict[str, frozenset[str]] = {
    "eventstore": frozenset(),
    FOUNDATION: frozenset({"eventstore"}),
    "app.aggregates": AGGREGATES,
    "app.projections": PROJECTIONS,
    "app.conversation": CONVERSATION,
    "app.gateways": ENTRANCE,  # adapters know the ports they implement, and nobody knows adapters
    "app.simulators": frozenset({FOUNDATION}),  # strangers to the bot, as the real ones are
    "app.api": ENTRANCE | {"app.exports"},
    "app.jobs": ENTRANCE | {"app.thread_files"},
    "app.installation": CONVERSATION,  # what is on the disk, opened to be read
    "app.importing": ENTRANCE,
    "app.outside": ENTRANCE | {"app.gateways"},  # the world of one bot
    "app.bootstrap": COMPOSED
    | {"app.outside", "app.skips", "app.thread_files"},  # the parts of a bot
    "app.bot": COMPOSED | {"app.bootstrap", "app.outside"},  # those, running
    "app.exports": CONVERSATION,  # rows and formats
    "app.exporting": CONVERSATION | {"app.exports"},  # an export, in the worker
    "app.thread_files": CONVERSATION,  # the thread map as a file
    "app.control_log": PROJECTIONS,  # the installation's own log, as it is decided upon
    "app.control": PROJECTIONS | {"app.control_log"},  # what operators did, and what was opened
    "app.skips": CONVERSATION | {"app.control"},  # what of it the read models ask
    "app.access": PROJECTIONS | {"app.control_log"},  # who may come in
    "app.moves": PROJECTIONS | {"app.control"},  # who moved what where
    "app.reads": COMPOSED
    | {
        "app.bot",
        "app.control",
        "app.installation",
        "app.skips",
    },  # a bot, as the API sees it
    "app.node": COMPOSED  # the bots of one process, and their door
    | {"app.access", "app.bot", "app.outside", "app.reads"},
    "app.serving": COMPOSED | {"app.access", "app.control", "app.node"},  # that process
    "app.follower_child": CONVERSATION | {"app.skips"},  # the read models, followed
    "app.worker": COMPOSED | {"app.exporting", "app.skips", "app.thread_files"},
    "app.demo": COMPOSED,
    "app.cli": COMMANDS,
    "app.__main__": COMMANDS | {"app.cli"},
}
HOUSE = frozenset({"app", "bench", "eventstore", "tests"})

# The log could be published by itself: it knows nothing of HTTP or of any provider.
NOT_IN_EVENTSTORE = frozenset({"fastapi", "httpx2", "openai", "starlette", "typer", "uvicorn"})
# Decisions are pure: these libraries, and of the standard one nothing that reads the world.
IN_AGGREGATES = frozenset({"eventsourcing", "msgspec"})
WORLD = frozenset(
    {"asyncio", "io", "os", "pathlib", "random", "secrets", "socket", "sqlite3", "subprocess"}
    | {"threading", "time", "urllib"}
)


def unit_of(module: str) -> str:
    """The row of MAY_IMPORT a module of the house belongs to; other packages are their own."""
    parts = module.split(".")
    if parts[0] != "app":
        return parts[0]
    named = ".".join(parts[:2])
    return named if named in MAY_IMPORT else FOUNDATION


def imported_by(source: str, *, module: str, is_package: bool) -> Iterator[tuple[int, str]]:
    """Line and full dotted name of everything `source` imports, however it is spelt.

    Covers imports inside functions and under TYPE_CHECKING, relative ones, and
    `import_module("…")` with a literal name. `from a import b` is reported as `a.b`.
    """
    package = module.split(".") if is_package else module.split(".")[:-1]
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.Import(names=names):
                yield from ((node.lineno, alias.name) for alias in names)
            case ast.ImportFrom(module=origin, names=names, level=level):
                above = package[: len(package) - level + 1] if level else []
                base = ".".join([*above, *([origin] if origin else [])])
                yield from ((node.lineno, f"{base}.{alias.name}") for alias in names)
            case ast.Call(
                func=ast.Name(id="import_module" | "__import__")
                | ast.Attribute(attr="import_module"),
                args=[ast.Constant(value=str(name)), *_],
            ):
                yield node.lineno, name


def refusal(unit: str, target: str) -> str | None:
    """Why a module of `unit` may not import `target`; None when it may."""
    top = target.split(".", maxsplit=1)[0]
    if top in HOUSE:
        wanted = unit_of(target)
        allowed = wanted == unit or wanted in MAY_IMPORT[unit]
        return None if allowed else f"{unit} may not import {wanted}"
    if unit == "eventstore" and top in NOT_IN_EVENTSTORE:
        return "eventstore knows nothing of HTTP, providers or command lines"
    if unit == "app.aggregates" and (
        top in WORLD or top not in sys.stdlib_module_names | IN_AGGREGATES
    ):
        return "aggregates are pure"
    return None


def violations(source: str, *, module: str, is_package: bool = False) -> list[str]:
    """One sentence for each import of `source` that points the wrong way."""
    unit = unit_of(module)
    return [
        f"{module}:{line} imports {target}: {reason}"
        for line, target in imported_by(source, module=module, is_package=is_package)
        if (reason := refusal(unit, target))
    ]


def module_files() -> list[Path]:
    return sorted(path for top in ("eventstore", "app") for path in (ROOT / top).rglob("*.py"))


def test_every_import_in_the_house_points_down() -> None:
    found = []
    for path in module_files():
        names = path.relative_to(ROOT).with_suffix("").parts
        is_package = names[-1] == "__init__"
        module = ".".join(names[:-1] if is_package else names)
        found += violations(path.read_text("utf-8"), module=module, is_package=is_package)
    assert not found, "\n" + "\n".join(found)


def test_the_rule_looks_at_the_whole_house() -> None:
    units = {unit_of(".".join(p.relative_to(ROOT).with_suffix("").parts)) for p in module_files()}
    assert {"eventstore", "app.aggregates", "app.conversation"} <= units


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("eventstore.writer", "from app.settings import Settings"),
        ("eventstore.writer", "import httpx2"),
        ("app.aggregates.user", "from app.projections import threads"),
        ("app.aggregates.user", "import app.settings"),
        ("app.aggregates.user", "import structlog"),
        ("app.aggregates.user", "from time import time"),
        ("app.projections.threads", "from app.gateways.openai import OpenAIGateway"),
        ("app.projections.threads", "from ..conversation import turn"),
        ("app.conversation.turn", "from app import gateways"),
        ("app.conversation.turn", "from .. import api"),
        ("app.conversation.turn", "def f():\n    import app.simulators.openai"),
        ("app.conversation.turn", "if TYPE_CHECKING:\n    from app.api import door"),
        ("app.conversation.turn", "importlib.import_module('app.gateways.whapi')"),
        ("app.api.webhooks", "from app.jobs import schedule"),
        ("app.api.webhooks", "from app.bootstrap import start"),
        ("app.bot", "from app.gateways import whapi"),
        ("app.cli", "from app.gateways import whapi"),
        ("app.cli", "from app.simulators import openai"),
        ("app.settings", "from app.conversation import turn"),
        ("app.simulators.whapi", "from app.gateways import whapi"),
        ("app.gateways.whapi", "from app.simulators import whapi"),
        ("app.api.webhooks", "from tests.unit import fakes"),
    ],
)
def test_an_import_that_points_up_is_found(module: str, source: str) -> None:
    assert len(violations(source, module=module)) == 1


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("eventstore.writer", "import sqlite3\nfrom eventstore.codec import Event"),
        ("app.aggregates.user", "import msgspec\nfrom datetime import datetime\nimport eventstore"),
        ("app.aggregates.user", "from . import events\nfrom .events import MessageReceived"),
        ("app.conversation.turn", "from app.projections import due\nimport app.aggregates.user"),
        ("app.gateways.openai", "import openai\nfrom app.conversation.ports import Provider"),
        ("app.simulators.__main__", "from app.simulators.openai import serve"),
        ("app.api.webhooks", "import fastapi\nfrom app import settings"),
        ("app.cli", "from app.bot import open_bot\nimport bench"),
        ("app.outside", "from app.gateways import whapi\nfrom app.conversation import ports"),
    ],
)
def test_an_import_that_points_down_is_left_alone(module: str, source: str) -> None:
    assert violations(source, module=module) == []

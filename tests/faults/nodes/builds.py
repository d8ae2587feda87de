"""Two builds of the program, each in a directory of its own, as two releases on a disk are.

`older` is this checkout. `newer` is a copy that was worked on, as the next release will be: it has
another number, one more migration of the log's schema, appends through the function that this
migration adds, and writes an event of a type that the older one does not know.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Final

import msgspec

from eventstore.codec import Event
from tests.integration.turns.processes import ROOT

OLDER, NEWER = "1.0", "1.1"
PACKAGES: Final = ("app", "eventstore")

_SCHEMA: Final = Path("eventstore/sql/postgres")
_FIRST: Final = "0001_log.sql"


class EditNoticed(Event, frozen=True):
    """What the newer build writes behind each edit. It changes no state."""

    why: str = msgspec.field(name="w", default="")


_CLASS: Final = '''class EditNoticed(Event, frozen=True):
    """Somebody changed a message."""

    why: str = field(name="w", default="")


'''


def older(directory: Path) -> Path:
    """Make the build that nodes run now; return where it is."""
    return _build(directory, OLDER)


def newer(directory: Path) -> Path:
    """Make the build that they are to run next; return where it is."""
    build = _build(directory, NEWER)
    events = build / "app/aggregates/events.py"
    _change(events, "class MessageDeleted(", _CLASS + "class MessageDeleted(")
    _change(events, "    MessageEdited,\n", "    MessageEdited,\n    EditNoticed,\n")
    state = build / "app/aggregates/user_state.py"
    known = "    e.MessageEdited: _edited,\n"
    _change(state, known, known + "    e.EditNoticed: lambda state, *_: state,\n")
    facts = build / "app/aggregates/user_facts.py"
    before, edit, after = facts.read_text().partition("def edit_message(")
    edited = "return self._record(event, now, key)"
    assert edit
    assert edited in after
    noticed = f'{edited[7:]}\n        return self._record(e.EditNoticed(why="a new release"), now)'
    facts.write_text(before + edit + after.replace(edited, noticed, 1))
    _migrate(build)
    return build


def _build(directory: Path, release: str) -> Path:
    for package in PACKAGES:
        shutil.copytree(ROOT / package, directory / package)
    about = directory / f"hilo-{release}.dist-info"  # found before any that is installed
    about.mkdir()
    (about / "METADATA").write_text(f"Metadata-Version: 2.1\nName: hilo\nVersion: {release}\n")
    return directory


def _migrate(build: Path) -> None:
    """Let the build have a second version of the schema, and use what that adds."""
    first = (build / _SCHEMA / _FIRST).read_text()
    _, create, rest = first.partition("CREATE FUNCTION append_1(")
    body, end, _ = rest.partition("\nEND $$;\n")
    assert create
    assert end
    added = create.replace("append_1", "append_2") + body + end
    column = "ALTER TABLE nodes ADD COLUMN zone text NOT NULL DEFAULT '';\n"
    number = 1 + max(int(file.name[:4]) for file in (build / _SCHEMA).glob("*_*.sql"))
    (build / _SCHEMA / f"{number:04}_next.sql").write_text("-- oldest: 1\n" + column + added)
    _change(build / "eventstore/sql/postgres.sql", "FROM append_1(", "FROM append_2(")


def _change(file: Path, old: str, new: str) -> None:
    text = file.read_text()
    assert text.count(old) == 1, f"{file.name} holds {text.count(old)} × {old!r}"
    file.write_text(text.replace(old, new))

"""What the files hold: a member for each person with a conversation, in M001's format.

    "573001234567": {
        "threadId": "thread_abc123",
        "chatId": "573001234567@s.whatsapp.net",
        "userName": "Juan Pérez",
        "createdAt": "2025-07-28T10:30:00Z",
        "lastActivity": "2025-07-28T15:45:00Z",
        "name": "Juan Pérez",
        "labels": ["Consulta", "VIP"]
    }

`name` and `labels` are left out while nobody knows them, `lastActivity` of whom nobody has seen
active. `userName` is what people call themselves. Who has no number is named by a lid (`…@lid`).
Times are whole seconds, cut off, so that what is read back is never newer than what is known.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import msgspec

from app.projections import NotBuilt, clients
from eventstore.errors import CannotUnseal, Forgotten, KeyExpired, KeyMissing
from eventstore.handles import Handle
from eventstore.keyring import Keyring
from eventstore.sealing import Sealer
from eventstore.store import LogReader

MODELS: Final = ("thread_map", "client_view")
_INDENT: Final = 4
_MICROS: Final = 1_000_000
_COPY: Final = """
    CREATE TABLE mapped AS
    SELECT user, thread, started_at, last_activity FROM live.thread_map
     WHERE thread IS NOT NULL AND user IN (SELECT user FROM live.client_view);
    CREATE TABLE client_view AS
    SELECT * FROM live.client_view WHERE user IN (SELECT user FROM mapped)
"""
_Mapped = tuple[str, str, int | None, int | None]


class _Member(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True):
    thread_id: str
    chat_id: str
    user_name: str
    created_at: str
    last_activity: str | None = None
    name: str | None = None
    labels: tuple[str, ...] | None = None


class Content:
    """The members, of one moment of the read models, one after the other in constant memory."""

    def __init__(self, path: Path, log: LogReader, keyring: Keyring) -> None:
        """Read the views at `path`, which is left alone as soon as its rows are copied.

        Raises `NotBuilt` or `sqlite3.Error`.
        """
        self.people = 0
        """Members so far."""
        self.unopened = 0
        """People of whom something could not be opened though nobody was forgotten."""
        self._log = log
        self._keyring = keyring
        self._sealer = Sealer(keyring)
        self._db = _copied(path)

    def pieces(self) -> Iterator[bytes]:
        """Yield the JSON text."""
        yield b"{"
        for mapped, view in zip(self._mapped(), clients.every(self._db), strict=True):
            named = self._member(mapped, view)
            if named is None:
                continue
            key, member = named
            text = msgspec.json.format(msgspec.json.encode(member), indent=_INDENT)
            lead = b",\n    " if self.people else b"\n    "
            yield lead + msgspec.json.encode(key) + b": " + text.replace(b"\n", b"\n    ")
            self.people += 1
        yield b"\n}\n" if self.people else b"}\n"

    def close(self) -> None:
        """Let go of the copy."""
        self._db.close()

    def _mapped(self) -> Iterator[_Mapped]:
        return iter(
            self._db.execute(
                "SELECT user, thread, started_at, last_activity FROM mapped ORDER BY user"
            )
        )

    def _member(self, mapped: _Mapped, view: clients.ClientView) -> tuple[str, _Member] | None:
        """Return a person's key and member; None for whom was forgotten: no handle leads there."""
        user, thread, started_at, last_activity = mapped
        person = _person(self._keyring.handles_of(user))
        if person is None:
            return None
        key, chat = person
        try:
            client = clients.open_client(view, self._log, self._sealer)
        except Forgotten:
            return None
        except (KeyExpired, KeyMissing, CannotUnseal) as error:
            self.unopened += not isinstance(error, KeyExpired)
            client = None
        known = client is not None and view.profile is not None
        active = max(last_activity or 0, view.last_activity or 0)
        return key, _Member(
            thread_id=thread,
            chat_id=(client and client.chat_id) or chat,
            user_name=(client and client.user_name) or "",
            created_at=_time(started_at or 0),
            last_activity=_time(active) if active else None,
            name=(client.name or None) if client is not None else None,
            labels=client.labels if client is not None and known else None,
        )


def _copied(path: Path) -> sqlite3.Connection:
    """Return the rows that matter, of one moment, in a database that nobody else has."""
    if not path.is_file():
        raise NotBuilt(MODELS[0])
    db = sqlite3.connect("", isolation_level=None)
    try:
        db.execute("ATTACH ? AS live", (str(path),))
        db.execute("BEGIN")
        _refuse_unbuilt(db)
        for statement in _COPY.split(";"):
            db.execute(statement)
        db.execute("COMMIT")
        db.execute("DETACH live")
    except BaseException:
        db.close()
        raise
    return db


def _refuse_unbuilt(db: sqlite3.Connection) -> None:
    built = {name for (name,) in db.execute("SELECT model FROM live.cursors")}
    missing = next((name for name in MODELS if name not in built), None)
    if missing is not None:
        raise NotBuilt(missing)


def _person(handles: tuple[Handle, ...]) -> tuple[str, str] | None:
    """Return the key of a person and the chat that it implies, the phone first."""
    by_kind = {handle.kind: handle.value for handle in handles}
    if "phone" in by_kind:
        return by_kind["phone"], f"{by_kind['phone']}@s.whatsapp.net"
    if "lid" in by_kind:
        return f"{by_kind['lid']}@lid", f"{by_kind['lid']}@lid"
    return None


def _time(micros: int) -> str:
    return datetime.fromtimestamp(micros // _MICROS, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")

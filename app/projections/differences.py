"""What changed between two positions of the log: for one user, and in the thread map.

Both sides are replayed from the streams that have events in between, and from no others, so that a
question about half an hour costs what happened in it and the histories of those whom it happened
to.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

import msgspec

from app.aggregates.events import USER_EVENTS, Profile
from app.aggregates.user import User
from app.projections.model import Seen
from app.projections.people import PersonModel, PersonRow, Rows
from app.projections.presenting import Presenter, veiled
from app.projections.thread_map import THREAD_MAP
from app.projections.token_totals import TOKEN_TOTALS
from app.projections.user_at import user_at
from eventstore.codec import Codec
from eventstore.errors import UnknownEventType
from eventstore.sealing import Sealed
from eventstore.store import LogReader
from eventstore.types import Position, Recorded, StreamName, Version

_PAGE: Final = 1000
_CODEC: Final = Codec(USER_EVENTS)
_MODELS: Final[tuple[PersonModel[PersonRow], ...]] = (THREAD_MAP, TOKEN_TOTALS)  # type: ignore[assignment]


class Change(msgspec.Struct, frozen=True):
    """One field that is not what it was."""

    field: str
    before: object
    after: object


class UserDiff(msgspec.Struct, frozen=True):
    """What changed for one user, and by which events."""

    user: str
    changes: list[Change]
    events: list[Recorded]


class Differences(msgspec.Struct, frozen=True):
    """What changed with `since < position <= until`."""

    since: Position
    until: Position
    users: list[UserDiff]


def of_user(
    log: LogReader, stream: StreamName, since: Position, until: Position, present: Presenter
) -> UserDiff:
    """Return what changed for one user: everything that decisions are made upon.

    What is sealed is opened if `present` can do it.
    """
    before = _facts(user_at(log, stream, since), present)
    after = _facts(user_at(log, stream, until), present)
    events = [event for event in _stream(log, stream, until) if event.position > since]
    return UserDiff(_user(stream), _changes(before, after), events)


def of_threads(log: LogReader, since: Position, until: Position) -> Differences:
    """Return whose row of the thread map, or of the token totals, is another one, by user.

    `events` of each are those, of the types that these read models want, in between.
    """
    wanted = frozenset(_CODEC.stored_names({cls for model in _MODELS for cls in model.events}))
    touched: dict[StreamName, list[Recorded]] = {}
    after = since
    while after < until:
        page = log.read(after=after, up_to=until, limit=_PAGE, types=tuple(wanted))
        for event in page:
            touched.setdefault(event.stream, []).append(event)
        after = page[-1].position if len(page) >= _PAGE else until
    users = []
    for stream, events in touched.items():
        before, now = _rows(log, stream, since, until)
        changes = _changes(before, now)
        if changes:
            users.append(UserDiff(_user(stream), changes, events))
    return Differences(since, until, sorted(users, key=lambda one: one.user))


def _rows(
    log: LogReader, stream: StreamName, since: Position, until: Position
) -> tuple[dict[str, object], dict[str, object]]:
    """Return one user's row before and after, of all the models together."""
    rows = [Rows(model.row) for model in _MODELS]
    earlier: list[Seen] = []
    later: list[Seen] = []
    for recorded in _stream(log, stream, until):
        seen = _seen(recorded)
        if seen is not None:
            (earlier if recorded.position <= since else later).append(seen)
    _fold(rows, earlier)
    before = _row(rows, stream)
    _fold(rows, later)
    return before, _row(rows, stream)


def _fold(rows: Sequence[Rows[PersonRow]], batch: Sequence[Seen]) -> None:
    for model, of_model in zip(_MODELS, rows, strict=True):
        model.fold(of_model, [seen for seen in batch if seen[3] in model.events])


def _row(rows: Sequence[Rows[PersonRow]], stream: StreamName) -> dict[str, object]:
    found: dict[str, object] = {}
    for of_model in rows:
        found |= msgspec.structs.asdict(of_model[stream])
    return found


def _seen(recorded: Recorded) -> Seen | None:
    try:
        event = _CODEC.decode(recorded.type, recorded.state)
    except UnknownEventType:  # of a newer release: no read model of this one wants it
        return None
    return recorded.position, recorded.stream, recorded.recorded_at, type(event), event


def _stream(log: LogReader, stream: StreamName, until: Position) -> Iterator[Recorded]:
    version = Version(0)
    while page := log.read_stream(stream, after=version, limit=_PAGE):
        for event in page:
            if event.position > until:
                return
            yield event
        version = page[-1].version


def _facts(user: User, present: Presenter) -> dict[str, object]:
    """Return a state as names and plain values, one level of its parts spelt out."""
    facts: dict[str, object] = {}
    for name, value in msgspec.structs.asdict(user.state).items():
        if name in {"early_edits", "early_deletes", "sent"}:
            continue  # bookkeeping that nobody asks about
        if name == "pending":
            facts["waiting"] = len(value)
        elif name == "profile":
            facts |= _profile(user, present)
        elif isinstance(value, msgspec.Struct):
            facts |= {
                f"{name}.{part}": _opened(user, part, of, present)
                if isinstance(of, Sealed)
                else _plain(of)
                for part, of in _parts(value)
            }
        else:
            facts[name] = _plain(value)
    return facts


def _profile(user: User, present: Presenter) -> dict[str, object]:
    """Return names and labels; of a profile that stays sealed what tells it from others."""
    sealed = user.state.profile
    if sealed is None:
        return {}
    match present.value_of(user.stream, "profile", sealed, Profile):
        case {"name": str(name), "labels": list(labels), "user_name": str(own)}:
            told: dict[str, object] = {"profile.user_name": own} if own else {}
            return told | {"profile.name": name, "profile.labels": ", ".join(labels)}
        case _:
            return {"profile": sealed.digest.hex()[:16]}


def _opened(user: User, name: str, value: Sealed[str], present: Presenter) -> object:
    """Return the text of a sealed field, or why it stays sealed."""
    shown = present.value_of(user.stream, name, value, str)
    return veiled(shown) or shown


def _parts(value: msgspec.Struct) -> Iterator[tuple[str, object]]:
    for part in value.__struct_fields__:
        yield part, getattr(value, part)


def _plain(value: object) -> object:
    match value:
        case None | bool() | int() | str():
            return value
        case tuple():
            return len(value)
        case _:
            return "«sealed»"


def _changes(before: dict[str, object], after: dict[str, object]) -> list[Change]:
    names = dict.fromkeys((*before, *after))
    return [
        Change(name, before.get(name), after.get(name))
        for name in names
        if before.get(name) != after.get(name)
    ]


def _user(stream: StreamName) -> str:
    return stream.partition("/")[2]

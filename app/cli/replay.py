"""One user as the log tells it now, and decisions made beside a running server."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Final, TypeVar

from app.aggregates.stream import ReadOnlyUser
from app.aggregates.user import User
from app.aggregates.user_state import BLANK, STATE_SHAPE, UserState, evolve, unpack
from app.cli.failures import CannotReach, FoundProblem
from eventstore.errors import Conflict, EpochMismatch, UnknownEventType
from eventstore.types import Append, Micros, StreamName, Version, new_append_id
from eventstore.writer import Writer

if TYPE_CHECKING:
    from app.installation import Installation

A = TypeVar("A")
Command = Callable[[User, Micros], A]

_PAGE: Final = 5000
_ATTEMPTS: Final = 50


def user_of(here: Installation, stream: StreamName) -> User:
    """Return the user as of the end of the log: the newest snapshot, and what came after it."""
    state, version = _snapshot(here, stream)
    read_only = False
    while page := here.log.read_stream(stream, after=version, limit=_PAGE):
        for recorded in page:
            version = recorded.version
            try:
                event = here.codec.decode(recorded.type, recorded.state)
            except UnknownEventType:
                read_only = True
            else:
                state = evolve(state, event, version, recorded.recorded_at)
    return User(stream, state, version, read_only=read_only)


def decide(here: Installation, stream: StreamName, command: Command[A]) -> A:
    """Make what `command` decides durable, from this process, and return its answer.

    The server may append at the same time: after a conflict the command is asked again, on what
    the log says then. Raises `FoundProblem` for a user of a newer release, `CannotReach` if the
    stream never holds still.
    """
    writer = Writer(here.log)
    try:
        for _ in range(_ATTEMPTS):
            try:
                return _try(here, writer, stream, command)
            except (Conflict, EpochMismatch):
                continue
    except ReadOnlyUser as error:
        raise FoundProblem(str(error)) from None
    finally:
        writer.close()
    msg = f"{stream} is written too fast to decide upon: try again"
    raise CannotReach(msg)


def _try(here: Installation, writer: Writer, stream: StreamName, command: Command[A]) -> A:
    epoch = here.log.head().epoch
    user = user_of(here, stream)
    expected = user.version
    answer = command(user, here.log.now())
    triggered = user.collect_events()
    if triggered:
        events = tuple(here.codec.encode(event, key) for event, key in triggered)
        writer.append_blocking(Append(stream, expected, events, epoch, new_append_id()))
    return answer


def _snapshot(here: Installation, stream: StreamName) -> tuple[UserState, Version]:
    snapshot = here.log.snapshot(stream)
    if snapshot is None or snapshot.shape != STATE_SHAPE:
        return BLANK, Version(0)
    return unpack(snapshot.state), snapshot.version

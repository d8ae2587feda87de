"""One user as the log tells it now, and decisions made beside a running server."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Final, TypeVar

from app.aggregates.stream import ReadOnlyUser
from app.aggregates.user import User
from app.cli.failures import CannotReach, FoundProblem
from app.projections.user_at import user_at
from eventstore.errors import Conflict, EpochMismatch
from eventstore.types import Append, Micros, Position, StreamName, new_append_id
from eventstore.writer import Writer

if TYPE_CHECKING:
    from app.installation import Installation

A = TypeVar("A")
Command = Callable[[User, Micros], A]

_ATTEMPTS: Final = 50


def user_of(here: Installation, stream: StreamName, position: Position | None = None) -> User:
    """Return the user as of a position, or of the end of the log."""
    return user_at(here.log, stream, position)


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

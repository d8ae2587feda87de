"""Deciding in the name of a run: only while it holds the turn."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from app.aggregates.answers import RunSuperseded
from app.aggregates.user import User
from app.aggregates.user_state import UserState
from app.conversation.repository import Repository
from eventstore.types import StreamName

R = TypeVar("R")


class Superseded(Exception):
    """The run no longer holds the turn, or we the run: somebody took over. Leave it to them."""


async def decide_as(
    users: Repository[User, UserState],
    stream: StreamName,
    run: str,
    incarnation: str,
    command: Callable[[User], R | RunSuperseded],
) -> R:
    """Make a decision of a run durable. Raises `Superseded` if the run lost its turn.

    Or if another process than `incarnation` holds the run: it was taken over, since this one was
    thought dead. That is looked up in the same state as the decision, and again after every
    conflict.
    """

    def decide(user: User) -> R | RunSuperseded:
        current = user.state.run
        if current is None or current.id != run or current.incarnation != incarnation:
            return RunSuperseded(run, None if current is None else current.id)
        return command(user)

    answer = await users.decide(stream, decide)
    if isinstance(answer, RunSuperseded):
        raise Superseded
    return answer

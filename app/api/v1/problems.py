"""What a read may be refused with: each problem says what to do."""

from __future__ import annotations

from typing import Final

from app.api.problem import Problem
from app.projections import MODELS, NotBuilt, OtherVersion
from app.times import iso
from eventstore.errors import EventStoreError
from eventstore.types import Recorded


def unclear(detail: str) -> Problem:
    """Return the 422 of an `as_of` that is no moment."""
    return Problem(
        type="/problems/unclear-moment",
        title="This moment cannot be understood",
        status=422,
        detail=detail,
    )


def not_yet(detail: str) -> Problem:
    """Return the 409 of a position that the log has not reached."""
    return Problem(
        type="/problems/not-yet", title="The log is not there yet", status=409, detail=detail
    )


TOO_MANY_WAIT: Final = Problem(
    type="/problems/too-many-waiting",
    title="Too many wait for a position",
    status=503,
    detail="Try again after Retry-After seconds, or without min_position.",
)


def not_built(detail: str) -> Problem:
    """Return the 503 of a read model that cannot be read."""
    return Problem(
        type="/problems/not-built",
        title="The read model is not built yet",
        status=503,
        detail=detail,
    )


def being_built(error: NotBuilt | OtherVersion, seconds: int) -> Problem:
    """Return the 503 of read models that are there in some `seconds`."""
    of = "the log, anew for this release" if isinstance(error, OtherVersion) else "the log"
    return not_built(
        f"The read models are being built from {of}: try again in {seconds} s. Webhooks are taken "
        "and /v1/events is served meanwhile; GET /v1/projections tells how far they are."
    )


def changed(detail: str) -> Problem:
    """Return the 410 of a cursor into a log that was restored meanwhile."""
    return Problem(
        type="/problems/log-changed",
        title="The log under this cursor is another one now",
        status=410,
        detail=f"{detail}. Start again without a cursor.",
    )


def unavailable(error: EventStoreError) -> Problem:
    """Return the 503 of a log that cannot be read."""
    return Problem(
        type="/problems/log-unavailable",
        title="The log cannot be read now",
        status=503,
        detail=f"{type(error).__name__}: try again after Retry-After seconds.",
    )


def which_bot(bots: list[str]) -> Problem:
    """Return the 422 of a question that names none of several bots."""
    detail = f"Say which with ?bot=: there are {', '.join(bots)}." if bots else "None is open."
    return Problem(
        type="/problems/which-bot", title="Which bot is meant?", status=422, detail=detail
    )


def other_bot() -> Problem:
    """Return the 403 of a key that belongs to another bot."""
    return Problem(
        type="/problems/no-right",
        title="This key is for another bot",
        status=403,
        detail="Leave ?bot= out, or use a key of that bot.",
    )


def no_bot() -> Problem:
    """Return the 404 of a bot that is not open."""
    return Problem(
        type="/problems/no-such-bot",
        title="There is no such bot here",
        status=404,
        detail="GET /v1/bots lists them.",
    )


def no_such(what: str) -> Problem:
    """Return the 404 of something that is not there."""
    return Problem(
        type="/problems/not-found",
        title=f"There is no such {what}",
        status=404,
        detail="It is not there as of this moment of the log.",
    )


def no_such_model() -> Problem:
    """Return the 404 of what is no read model; it names those that there are."""
    return Problem(
        type="/problems/not-found",
        title="There is no such read model",
        status=404,
        detail=f"There are: {', '.join(sorted(model.name for model in MODELS))}.",
    )


def not_known_yet(what: str, first: Recorded) -> Problem:
    """Return the 404 of something that was not there yet; `first` is its first event."""
    return Problem(
        type="/problems/not-found",
        title=f"There was no such {what} yet",
        status=404,
        detail=f"It is known since {iso(first.recorded_at)}, position {first.position}.",
    )


def bad_cursor(detail: str) -> Problem:
    """Return the 404 of a cursor that this API has not made, or not for this question."""
    return Problem(
        type="/problems/bad-cursor",
        title="This cursor leads nowhere",
        status=404,
        detail=f"{detail}. Use `next` of the page before, with the same filters.",
    )

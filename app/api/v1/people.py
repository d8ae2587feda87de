"""How a request names a user: by the whole pseudonym, and by nothing else.

Addresses stand in access logs, of proxies too: a phone number has no place in them. Pseudonyms are
random, so that telling who is unknown tells nothing to whoever guesses.
"""

from __future__ import annotations

import re
from typing import Annotated, Final

from fastapi import Query

from app.api.problem import Invalid, Problem, ProblemError
from app.api.v1.problems import no_such
from app.api.v1.reading import user_stream
from eventstore.store import LogReader
from eventstore.types import PSEUDONYM, StreamName

OfUser = Annotated[
    str | None,
    Query(
        description="only this user: the whole pseudonym, as `GET /v1/users` lists them",
        # For whoever reads the schema. What does not match is refused here, with an explanation.
        json_schema_extra={
            "anyOf": [{"type": "string", "pattern": f"^{PSEUDONYM}$"}, {"type": "null"}]
        },
    ),
]

_IS_PSEUDONYM: Final = re.compile(PSEUDONYM)
_EXPECTED: Final = (
    "A user is named by the whole pseudonym, 20 letters and digits, as `GET /v1/users` lists them. "
    "Phone numbers are not taken in addresses, because they would stand in access logs."
)


def refuse_no_pseudonym(user: str | None) -> None:
    """Raise `ProblemError` 422 if a filter's user can be nobody's pseudonym; None is no filter."""
    if user is not None and not _IS_PSEUDONYM.fullmatch(user):
        raise ProblemError(_NO_PSEUDONYM)


def stream_of(log: LogReader, user: str) -> StreamName:
    """Return the stream of a filter's user. Raises `ProblemError` 404 if the log knows nobody so.

    May wait for a disk.
    """
    stream = user_stream(user)
    if not log.stream_version(stream):
        raise ProblemError(no_such("user"))
    return stream


def no_such_user(user: str) -> Problem:
    """Return the 404 of an address that names nobody; it says what a user is named by."""
    if _IS_PSEUDONYM.fullmatch(user):
        return no_such("user")
    return Problem(
        type="/problems/not-found", title="There is no such user", status=404, detail=_EXPECTED
    )


_NO_PSEUDONYM: Final = Problem(
    type="/problems/invalid-request",
    title="This is not a pseudonym",
    status=422,
    detail=_EXPECTED,
    errors=(Invalid("/query/user", "not a whole pseudonym"),),
)

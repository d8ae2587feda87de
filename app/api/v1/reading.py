"""What every read shares: whose bot it is about, as of when, and how it is answered.

An answer carries the position of the log that it reflects, in `position` and in its ETag: who asks
again with `If-None-Match` gets 304 until it would be another answer, or none (`tags`).
`min_position` waits for what the caller has just caused: all who wait share one look, and too many
get 503. What blocks runs on reader threads.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from concurrent.futures import Executor
from contextlib import contextmanager
from typing import Annotated, Final, Protocol, TypeVar

import msgspec
from fastapi import Query, Request, Response

from app import asof
from app.api.callers import Caller
from app.api.problem import ProblemError
from app.api.v1.problems import (
    TOO_MANY_WAIT,
    bad_cursor,
    being_built,
    changed,
    no_bot,
    not_built,
    not_yet,
    other_bot,
    unavailable,
    unclear,
    which_bot,
)
from app.api.v1.tags import has_it, tag_of
from app.asof import UnclearMoment
from app.children import Piped
from app.projections import NotBuilt, OtherVersion, Views
from app.projections.clients import ClientView
from app.projections.pasts import PastFailed
from app.projections.skipping import SkipLedger
from app.waiting import TooManyWait
from eventstore.codec import Codec
from eventstore.errors import CursorMismatch, CutInsideAppend, EventStoreError, NotYet
from eventstore.keyring import Handle
from eventstore.sealing import Sealer
from eventstore.store import LogReader
from eventstore.types import Cursor, Position, StreamName

T = TypeVar("T")
WAIT_SECONDS: Final = 5.0
"""How long `min_position` is waited for."""

_BEYOND: Final = 2**62
_encode: Final = msgspec.json.Encoder().encode

BotName = Annotated[
    str, Query(alias="bot", description="the bot; may be left out where there is only one")
]
_INSTANT: Final = (
    r"(19[89]|20\d)\d-(0[1-9]|1[0-2])-(0[1-9]|1\d|2[0-8])T([01]\d|2[0-3]):[0-5]\d(:[0-5]\d(\.\d{6})?)?"
    r"(Z|[+-](0\d|1[0-3]):[0-5]\d)"
)
# For whoever reads the schema. What does not match is refused by us, with an explanation.
MOMENT: Final = {"pattern": rf"^(now|[0-9]{{1,9}}|{_INSTANT})?$"}
INSTANT: Final = {"pattern": rf"^{_INSTANT}$"}

AsOf = Annotated[
    str | None,
    Query(
        description="a position, or an instant with its zone: the answer as of then",
        json_schema_extra={"anyOf": [{"type": "string", **MOMENT}, {"type": "null"}]},
        openapi_examples={
            "position": {"value": "1234"},
            "instant": {"value": "2026-11-20T14:30:00-05:00"},
        },
    ),
]
MinPosition = Annotated[
    int | None,
    Query(ge=0, description=f"wait, at most {WAIT_SECONDS:g} s, until this position is reflected"),
]


class BotReads(Protocol):
    """One bot, to be read."""

    @property
    def name(self) -> str:
        """The bot's name."""

    @property
    def log(self) -> LogReader:
        """Its log."""

    @property
    def views(self) -> Views:
        """Its read models."""

    @property
    def codec(self) -> Codec:
        """What decodes every event that this release knows."""

    @property
    def sealer(self) -> Sealer:
        """What opens sealed fields."""

    @property
    def readers(self) -> Executor:
        """Threads that may wait for a disk."""

    @property
    def leaving(self) -> bool:
        """Whether the node is about to stop: whoever follows the log is to be sent away."""

    @property
    def rebuilding(self) -> bool:
        """Whether a rebuild that somebody asked for here is under way."""

    def reached(self, of: tuple[str, ...]) -> Position:
        """Return how far all of some read models are; of none: where the log ends.

        A read model that is not built yet is at 0. May wait for a disk.
        """

    async def reaches(self, of: tuple[str, ...], position: int, seconds: float) -> bool:
        """Wait until `reached` is a position; return False if it is not after so many seconds.

        Raises `TooManyWait` or `EventStoreError`.
        """

    @property
    def built_in(self) -> int:
        """Seconds until read models that are not built may be: a guess."""

    async def past(self, position: Position, models: tuple[str, ...]) -> Views:
        """Return read models as of a position; they stay open for a while."""

    async def rebuild(self, model: str) -> bool:
        """Start to make a read model anew; tell whether it was started: one at a time."""

    async def export(self, words: list[str]) -> Piped | None:
        """Start an export in the worker; None if there are too many. Raises `ChildFailed`."""

    def acted(self, action: str, *, by: str, why: str, about: tuple[str, ...]) -> None:
        """Record what an operator is going to do. Raises `LogUnavailable`."""

    def ledger(self, by: str) -> SkipLedger:
        """Return where skipped events are recorded, as somebody's act."""

    async def news(self) -> None:
        """Return when the log goes on, or soon: it is a hint."""

    async def client(self, pseudonym: str) -> ClientView:
        """Return what is known of a client, next to nothing of somebody unknown; never fails."""

    async def read_profile_again(self, person: str) -> str | None:
        """Begin to read name and labels of a phone number, lid or pseudonym; return who that is.

        None: nobody whom the log knows. Raises `TooManyUpdates` or `EventStoreError`.
        """

    def handles_of(self, pseudonym: str) -> tuple[Handle, ...]:
        """Return by what a person is known. Raises `KeyringError`."""


class Read(msgspec.Struct):
    """One request, as far as every route needs it."""

    request: Request
    bot: BotReads
    caller: Caller

    async def run(self, work: Callable[[], T]) -> T:
        """Do what may wait for a disk. Raises `ProblemError` for what the caller can mend."""
        loop = asyncio.get_running_loop()
        with self._explained():
            return await loop.run_in_executor(self.bot.readers, work)

    async def position(self, as_of: str | None, min_position: int | None = None) -> Position:
        """Return the position that is asked about, waiting for `min_position` if need be."""
        await self.reflected((), min_position)
        return await self.run(lambda: asof.as_of(self.bot.log, as_of))

    async def past(self, position: Position, models: tuple[str, ...]) -> Views:
        """Return read models as of a position. Raises `ProblemError` if they cannot be built."""
        try:
            return await self.bot.past(position, models)
        except PastFailed as error:
            raise ProblemError(not_built(str(error)), headers={"retry-after": "5"}) from None

    async def reflected(self, of: tuple[str, ...], min_position: int | None) -> None:
        """Wait until all of some read models, or the log, are at `min_position`.

        Raises `ProblemError` if they are not in `WAIT_SECONDS`, and if too many wait already.
        """
        if min_position is None or await self.run(lambda: self.bot.reached(of)) >= min_position:
            return
        with self._explained():
            if not await self.bot.reaches(of, min_position, WAIT_SECONDS):
                msg = f"position {min_position} is not reflected yet"
                raise ProblemError(not_yet(msg), headers={"retry-after": "1"})

    @contextmanager
    def _explained(self) -> Iterator[None]:
        """Raise `ProblemError` for what the caller can mend, or has to wait for."""
        try:
            yield
        except (UnclearMoment, CutInsideAppend) as error:
            raise ProblemError(unclear(str(error))) from None
        except NotYet as error:
            raise ProblemError(not_yet(str(error))) from None
        except TooManyWait:
            raise ProblemError(TOO_MANY_WAIT, headers={"retry-after": "1"}) from None
        except (NotBuilt, OtherVersion) as error:
            seconds = self.bot.built_in
            later = {"retry-after": str(seconds)}
            raise ProblemError(being_built(error, seconds), headers=later) from None
        except CursorMismatch as error:
            raise ProblemError(changed(str(error))) from None
        except EventStoreError as error:
            raise ProblemError(unavailable(error), headers={"retry-after": "5"}) from None

    async def answer(self, position: Position, make: Callable[[], object]) -> Response:
        """Answer with what `make` returns, or 304 if the caller has just that already.

        It is made in either case: what is not there, or not to be shown, is never "not modified".
        """
        return await self.answer_about(lambda: (position, make))

    async def answer_about(
        self, ask: Callable[[], tuple[Position, Callable[[], object]]]
    ) -> Response:
        """Do what `answer` does about the position that `ask` finds, in one visit of a thread.

        Each visit wakes two threads, and waits twice for its turn where the machine is busy.
        """

        def made() -> tuple[Position, bytes, str]:
            position, make = ask()
            return position, *self._made(position, make)

        position, body, tag = await self.run(made)
        headers = {
            "etag": tag,
            "x-hilo-position": str(position),
            "cache-control": "private, no-cache",
            "vary": "Authorization",
        }
        if has_it(self.request.headers.getlist("if-none-match"), tag):
            headers["vary"] += ", Accept-Encoding"  # elsewhere whoever packs says so
            return Response(status_code=304, headers=headers)
        return Response(body, media_type="application/json", headers=headers)

    def _made(self, position: Position, make: Callable[[], object]) -> tuple[bytes, str]:
        body = _encode(make())
        url = self.request.url
        resource = (url.path, url.query, self.bot.name, self.caller.role)
        return body, tag_of(self.bot.log.cursor_at(position), body, *resource)


def read_for(request: Request, caller: Caller, bot: str) -> Read:
    """Return the read of a request. Raises `ProblemError` 404 or 403."""
    bots: dict[str, BotReads] = request.app.state.bots()
    wanted = bot or caller.bot or (next(iter(bots)) if len(bots) == 1 else "")
    if not wanted:
        raise ProblemError(which_bot(sorted(bots)))
    if caller.bot and caller.bot != wanted:
        raise ProblemError(other_bot())
    if wanted not in bots:
        raise ProblemError(no_bot())
    return Read(request, bots[wanted], caller)


def user_stream(user: str) -> StreamName:
    """Return the stream of a pseudonym."""
    return StreamName(f"user/{user}")


class BadCursor(ValueError):
    """A page's cursor that is not one of ours, or of another question."""


def page_cursor(cursor: Cursor, question: bytes) -> str:
    """Return what leads to the next page of a question."""
    packed = msgspec.msgpack.encode((cursor.epoch, cursor.position, cursor.leaf, question))
    return packed.hex()


def opened_cursor(text: str, question: bytes, log: LogReader) -> Position:
    """Return where a page ended. Raises `ProblemError`, or `CursorMismatch` after a restore."""
    try:
        epoch, position, leaf, of = msgspec.msgpack.decode(
            bytes.fromhex(text), type=tuple[int, int, bytes, bytes]
        )
    except (ValueError, msgspec.MsgspecError):
        raise ProblemError(bad_cursor("it is not a cursor of this API")) from None
    if not 0 <= position < _BEYOND:
        raise ProblemError(bad_cursor("it is not a cursor of this API"))
    if of != question:
        raise ProblemError(bad_cursor("it belongs to a question with other filters"))
    log.verify_cursor(Cursor(epoch, position, leaf))  # type: ignore[arg-type]
    return Position(position)

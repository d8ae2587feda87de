"""What can be asked of the read models. Every answer names the log position that it reflects."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from typing import Annotated, Any, Final

import msgspec
from msgspec import Meta

from app.projections.asking import asking
from app.projections.errors import UnknownModel
from app.projections.model import ReadModel
from app.projections.token_totals import BANDS, DEFAULT_LIMIT, Band, band
from app.projections.views import Standing, State, Views
from eventstore.store import LogReader
from eventstore.types import Position

_PAIR: Final = ("thread_map", "token_totals")
_THREAD: Final = """
SELECT m.user, m.thread, m.started_at, m.reset_reason, m.registered_at, m.last_activity,
       m.messages_in, m.messages_out, coalesce(t.tokens, 0), coalesce(t.total, 0),
       coalesce(t.left_behind, 0), coalesce(t.unknown_runs, 0)
  FROM thread_map m LEFT JOIN token_totals t USING (user)
"""


class ThreadView(msgspec.Struct, frozen=True):
    """One user's conversation. Instants are µs since the epoch; no personal data."""

    user: str
    """The pseudonym."""
    thread: str | None
    started_at: int | None
    reset_reason: str | None
    registered_at: int | None
    last_activity: int | None
    messages_in: int
    messages_out: int
    tokens: Annotated[int, Meta(description="tokens of the current conversation")]
    total: Annotated[int, Meta(description="tokens of all conversations, ever")]
    left_behind: Annotated[int, Meta(description="tokens of the conversations that were left")]
    unknown_runs: int

    def band(self, limit: int = DEFAULT_LIMIT) -> Band:
        """Return where the conversation stands below the limit."""
        return band(self.tokens, limit)


class Threads(msgspec.Struct, frozen=True):
    """Some users' conversations, as of a position of the log."""

    position: Position
    threads: list[ThreadView]


class BandCount(msgspec.Struct, frozen=True):
    """How many conversations with tokens are in a band, and what they hold together."""

    band: Band
    threads: int
    tokens: Annotated[int, Meta(description="tokens, of all of them together")]


class Bands(msgspec.Struct, frozen=True):
    """The status of B1, as of a position of the log."""

    position: Position
    limit: Annotated[int, Meta(description="tokens of 100 %")]
    contacts: int
    with_tokens: int
    near_limit: int
    """Conversations at 80 % of the limit or more."""
    bands: list[BandCount]
    """From normal to critical; empty ones are there, too."""


class ModelStatus(msgspec.Struct, frozen=True):
    """How a read model stands."""

    name: str
    version: int
    """The version that this release has; `built` is the one whose rows are there."""
    built: int | None
    state: State
    position: Position
    head: Position
    lag: Annotated[int, Meta(description="events of the log that it does not reflect yet")]
    lag_seconds: Annotated[
        float, Meta(description="seconds: the age of the oldest of them, by the log's clock")
    ]
    error: str | None
    updated_at: int | None
    tables: tuple[str, ...]
    """Its tables and SQL views; the first is what an export gives if none is named."""


def threads(views: Views, *, limit: int = 50, offset: int = 0) -> Threads:
    """Return the users who were active last, the newest first."""
    order = " ORDER BY m.last_activity IS NULL, m.last_activity DESC, m.user LIMIT ? OFFSET ?"
    with asking(views, *_PAIR) as (db, position):
        return Threads(position, _views(db, _THREAD + order, (limit, offset)))


def thread(views: Views, pseudonym: str) -> ThreadView | None:
    """Return one user's conversation; None if the read models know nobody of that name."""
    with asking(views, *_PAIR) as (db, _):
        return next(iter(_views(db, _THREAD + " WHERE m.user = ?", (pseudonym,))), None)


def top(views: Views, n: int = 10) -> Threads:
    """Return the conversations with the most tokens, the largest first."""
    order = " WHERE t.tokens > 0 ORDER BY t.tokens DESC, m.user LIMIT ?"
    with asking(views, *_PAIR) as (db, position):
        return Threads(position, _views(db, _THREAD + order, (n,)))


def bands(views: Views, limit: int = DEFAULT_LIMIT) -> Bands:
    """Return how many conversations are how near to the limit."""
    cases = " ".join(f"WHEN tokens * 100 >= :limit * {p} THEN '{name}'" for name, p in BANDS if p)
    query = (
        f"SELECT CASE {cases} ELSE 'normal' END, count(*), sum(tokens)"  # noqa: S608 - constants
        " FROM token_totals WHERE tokens > 0 GROUP BY 1"
    )
    with asking(views, *_PAIR) as (db, position):
        contacts = db.execute("SELECT count(*) FROM thread_map").fetchone()[0]
        found = {row[0]: BandCount(*row) for row in db.execute(query, {"limit": limit})}
    counts = [found.get(name, BandCount(name, 0, 0)) for name, _ in reversed(BANDS)]
    near = sum(count.threads for count in counts if count.band in {"warning", "critical"})
    return Bands(position, limit, contacts, sum(c.threads for c in counts), near, counts)


def models(views: Views, log: LogReader, known: Sequence[ReadModel]) -> list[ModelStatus]:
    """Return how each of the release's read models stands."""
    found = views.standings()
    return [_status(model, found.get(model.name), log) for model in known]


def named(name: str, known: Sequence[ReadModel]) -> ReadModel:
    """Return the read model of a name. Raises `UnknownModel`, which lists them."""
    for model in known:
        if model.name == name:
            return model
    raise UnknownModel(name, sorted(model.name for model in known))


def _status(model: ReadModel, standing: Standing | None, log: LogReader) -> ModelStatus:
    head = log.head().position
    position = standing.cursor.position if standing else Position(0)
    oldest = log.event_at(Position(position + 1)) if position < head else None
    state: State = standing.state if standing else "building"
    if standing and standing.version != model.version and state == "live":
        state = "building"
    return ModelStatus(
        name=model.name,
        version=model.version,
        built=standing.version if standing else None,
        state=state,
        position=position,
        head=head,
        lag=max(0, head - position),
        lag_seconds=max(0, log.now() - oldest.recorded_at) / 1e6 if oldest else 0.0,
        error=standing.error if standing else None,
        updated_at=standing.updated_at if standing else None,
        tables=model.tables,
    )


def _views(db: sqlite3.Connection, query: str, values: tuple[Any, ...]) -> list[ThreadView]:
    return [ThreadView(*row) for row in db.execute(query, values)]

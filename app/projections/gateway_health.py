"""Gateway and webhook health: what came in and went out per hour, what failed, and how late it was.

One row for each thing that happened (`what`) and its kind (`detail`: an error code, a status, a
reason, a kind of item; empty where there is none). `late` is what passed between the sender's
own time of a message and its commit here, in µs; a sender's clock that is ahead counts as 0.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, ClassVar, Final

from sqlite_utils import Database
from sqlite_utils.migrations import Migrations

from app.aggregates import events as e
from app.aggregates import gateway_events as g
from app.projections.model import Seen
from app.projections.tally import HOUR, Tally, TallyModel
from eventstore.codec import Event

Named = tuple[str, Callable[[Any], str]]


def _none(_: Event | None) -> str:
    return ""


_NAMED: Final[dict[type[Event], Named]] = {
    g.OtherRecorded: ("other received", lambda event: event.kind),
    g.ItemRejected: ("item rejected", lambda event: event.reason),
    g.EarlyDelete: ("early delete", _none),
    e.MessageReceived: ("message received", _none),
    e.HumanMessageSent: ("human message", _none),
    e.MessageEdited: ("edit received", _none),
    e.MessageDeleted: ("delete received", _none),
    e.MessageEchoed: ("echo received", _none),
    e.MessageStatusChanged: ("status received", lambda event: event.status),
    e.DeliveryStarted: ("send started", _none),
    e.MessageSent: ("sent", lambda event: event.adopted),
    e.DeliveryUncertain: ("send uncertain", _none),
    e.RunStarted: ("run started", _none),
    e.RunCompleted: ("run completed", _none),
    e.RunFailed: ("run failed", lambda event: event.code),
    e.RunCancelled: ("run cancelled", lambda event: event.reason),
    e.TurnParked: ("turn parked", lambda event: event.reason),
}
_PLAIN: Final = frozenset(cls for cls, (_, detail) in _NAMED.items() if detail is _none)
"""Kinds that have one row an hour: most events are of them."""

_migrations = Migrations("gateway_health")


class GatewayHealth(TallyModel):
    """How the outside behaved."""

    name = "gateway_health"
    version = 1
    table = "gateway_hours"
    tables = ("gateway_hours",)
    migrations = _migrations
    names = ("what", "detail")
    sums = ("events", "timed", "late")
    maxima = ("latest",)
    events: ClassVar = (e.DeliveryFailed, *_NAMED)
    unread: ClassVar = _PLAIN - {e.MessageReceived}

    def fold(self, tally: Tally, batch: Iterable[Seen]) -> None:
        """Add the events to the rows."""
        received = e.MessageReceived
        hour, begins, ends, rows = -1, 0, 0, dict[type[Event], list[int]]()
        for _, _, at, kind, event in batch:
            if not begins <= at < ends:
                hour, rows = at // HOUR, {}
                begins, ends = hour * HOUR, (hour + 1) * HOUR
            row = rows.get(kind)
            if row is None:
                row = tally[hour, *_named(kind, event)]
                if kind in _PLAIN:
                    rows[kind] = row
            row[0] += 1
            if kind is received and event is not None and event.at is not None:
                row[1] += 1
                late = at - event.at
                if late > 0:  # a sender's clock may be ahead
                    row[2] += late
                    row[3] = max(row[3], late)


def _named(kind: type[Event], event: Event | None) -> tuple[str, str]:
    if isinstance(event, e.DeliveryFailed):
        return ("send put back" if event.retry_at is not None else "send given up"), event.code
    what, detail = _NAMED[kind]
    return what, detail(event)


@_migrations()
def table(db: Database) -> None:
    """Make the table."""
    GatewayHealth.make_table(db)


GATEWAY_HEALTH = GatewayHealth()

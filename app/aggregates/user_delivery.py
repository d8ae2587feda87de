"""Handing a reply to the gateway, part by part. A send cannot be fenced, so it is recorded.

The outcomes of a send are facts: they are recorded for a read-only user, too.
"""

from __future__ import annotations

from app.aggregates import events as e
from app.aggregates import open_work as w
from app.aggregates.answers import (
    DeliveryStart,
    HeldByAnother,
    InFlight,
    NotThisPart,
    NotYet,
    PartFailure,
    PartOutcome,
    PartPutBack,
    PartSettled,
    PartStarted,
)
from app.aggregates.stream import Aggregate
from app.aggregates.user_state import UserState
from eventstore.sealing import Sealed
from eventstore.types import IdempotencyKey, Micros


class UserDelivery(Aggregate[UserState]):
    """Decisions about the open delivery: of a reply, or of an apology."""

    __slots__ = ()

    def delivery_started(
        self, run: str, part: int, *, deadline: int, incarnation: str, now: Micros
    ) -> DeliveryStart:
        """Announce a send that has surely been given up at `deadline`; parts go in order.

        Only for the incarnation that holds the delivery, if one does.
        """
        self._decide()
        delivery = self._at(run, part)
        if delivery is None:
            return self._not_this_part(run)
        if delivery.incarnation not in {"", incarnation}:
            return HeldByAnother(run, delivery.incarnation)
        if delivery.in_flight is not None:
            return InFlight(part, delivery.in_flight)
        if delivery.retry_at > now:
            return NotYet(delivery.retry_at)
        attempt = delivery.attempt + 1
        event = e.DeliveryStarted(
            run=run, part=part, deadline=deadline, attempt=attempt, cor=run, cau=delivery.version
        )
        self._trigger(event, now)
        return PartStarted(part, attempt)

    def message_sent(  # noqa: PLR0913
        self,
        run: str,
        part: int,
        *,
        ref: bytes,
        sent: Sealed[e.SentMessage],
        key: IdempotencyKey | None,
        now: Micros,
        adopted: e.Adopted = "",
    ) -> PartOutcome:
        """Record that the gateway accepted the part, or how recovery found that it had been.

        `key` is `ref`, or None if the log holds that key already (the message was shown before
        it was known to be ours).
        """
        delivery = self._at(run, part)
        if delivery is None or (delivery.in_flight is None and not adopted):
            return self._not_this_part(run)
        event = e.MessageSent(run=run, part=part, ref=ref, sent=sent, adopted=adopted, cor=run)
        self._trigger(event, now, key)
        return self._settled()

    def delivery_failed(  # noqa: PLR0913 - which start of which part, and what became of it
        self,
        run: str,
        part: int,
        code: str,
        *,
        attempt: int,
        now: Micros,
        retry_at: int | None = None,
    ) -> PartFailure:
        """Record that the part was surely not sent: tried again at `retry_at`, or given up.

        `attempt` is the start that is spoken of: the part may have been started again meanwhile.
        """
        delivery = self._started(run, part, attempt)
        if delivery is None:
            return self._not_this_part(run)
        event = e.DeliveryFailed(run=run, part=part, code=code, retry_at=retry_at, cor=run)
        self._trigger(event, now)
        return self._settled() if retry_at is None else PartPutBack(retry_at)

    def delivery_uncertain(self, run: str, part: int, *, attempt: int, now: Micros) -> PartOutcome:
        """Record that nobody can say whether the part was sent. It is not sent again."""
        delivery = self._started(run, part, attempt)
        if delivery is None:
            return self._not_this_part(run)
        self._trigger(e.DeliveryUncertain(run=run, part=part, cor=run), now)
        return self._settled()

    def _at(self, run: str, part: int) -> w.Delivery | None:
        delivery = self.state.delivery
        if delivery is None or delivery.run != run or delivery.next_part != part:
            return None
        return delivery

    def _started(self, run: str, part: int, attempt: int) -> w.Delivery | None:
        delivery = self._at(run, part)
        if delivery is None or delivery.in_flight is None or delivery.attempt != attempt:
            return None
        return delivery

    def _not_this_part(self, run: str) -> NotThisPart:
        delivery = self.state.delivery
        if delivery is None or delivery.run != run:
            return NotThisPart(None)
        return NotThisPart(delivery.next_part)

    def _settled(self) -> PartSettled:
        delivery = self.state.delivery
        return PartSettled(None if delivery is None else delivery.next_part)

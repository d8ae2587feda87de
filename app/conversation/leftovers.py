"""What a webhook says that no turn will look at: kept sealed, as it came, in the bot's own stream.

It is never refused: the gateway would deliver it again for hours, and it would be the same.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Final

from app.aggregates.gateway import GATEWAY_STREAM, Gateway, GatewayState
from app.conversation.facts import Delivery, Fact, Odd, OtherFact, RejectedFact
from app.conversation.identities import Identities
from app.conversation.refs import Fingerprint
from app.conversation.repository import Repository
from eventstore.sealing import Sealed, Sealer
from eventstore.types import IdempotencyKey

BOT: Final = "bot"
"""Whose key seals it: it is nobody's, or nobody can tell whose."""

MAX_REJECTED_BYTES: Final = 1024 * 1024
"""Of an item that is rejected, this much is kept: it may be rejected for its size."""

ODD: Final[dict[type[Fact], Odd]] = {
    RejectedFact: Odd(rejected=1, other=0),
    OtherFact: Odd(rejected=0, other=1),
}
"""As what a fact is told to whoever sent it."""


class Leftovers:
    """Records what was understood by nobody, or is about nobody. Belongs to one event loop."""

    def __init__(  # noqa: PLR0913, PLR0917 - parts of the receiver
        self,
        gateway: Repository[Gateway, GatewayState],
        identities: Identities,
        sealer: Sealer,
        fingerprint: Fingerprint,
        channel: str,
        ask_first: Callable[[Delivery, IdempotencyKey], Awaitable[None]],
        counts: Counter[str],
    ) -> None:
        """Take the parts of a receiver. `ask_first` may raise `DuplicateKey`; adds to `counts`."""
        self._gateway = gateway
        self._identities = identities
        self._sealer = sealer
        self._fingerprint = fingerprint
        self._channel = channel
        self._ask_first = ask_first
        self._counts = counts

    async def keep(self, delivery: Delivery, index: int, fact: OtherFact) -> None:
        """Record what belongs to nobody, or is of no known kind. Raises `EventStoreError`."""
        key = (
            self._fingerprint("other", delivery.gateway, self._channel, fact.kind, fact.id)
            if fact.id
            else self._body_key(delivery, index, fact.kind, fact.raw)
        )
        await self._ask_first(delivery, key)
        body = await self._sealed(fact.raw)
        await self._gateway.record(
            GATEWAY_STREAM,
            lambda gateway: gateway.record_other(kind=fact.kind, body=body, key=key),
        )
        self._counts["other"] += 1

    async def reject(self, delivery: Delivery, index: int, fact: RejectedFact) -> None:
        """Record what cannot be read, or not as what it is. Raises `EventStoreError`."""
        key = self._body_key(delivery, index, "(rejected)", fact.raw)
        await self._ask_first(delivery, key)
        body = await self._sealed(fact.raw[:MAX_REJECTED_BYTES])
        await self._gateway.record(
            GATEWAY_STREAM,
            lambda gateway: gateway.reject_item(reason=fact.reason, body=body, key=key),
        )
        self._counts["rejected"] += 1

    async def _sealed(self, raw: bytes) -> Sealed[bytes]:
        await self._identities.key_at_hand(BOT)
        return self._sealer.seal(BOT, GATEWAY_STREAM, "body", raw)

    def _body_key(self, delivery: Delivery, index: int, kind: str, raw: bytes) -> IdempotencyKey:
        """Return the key of what has no id: its bytes, and its place in the body.

        Messages never have such a key: "ok" said twice is two messages. What comes here is read
        by nobody and answered by nobody, so that the same bytes again are taken for the same
        webhook, delivered again, and do not fill the log.
        """
        digest = hashlib.blake2b(raw, digest_size=32).hexdigest()
        return self._fingerprint("body", delivery.gateway, self._channel, str(index), kind, digest)

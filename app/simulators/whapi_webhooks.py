"""The Whapi simulator's webhooks out: a queue that retries until it is answered with 200."""

import asyncio
import contextlib
import heapq
import random
import time
from collections import deque
from collections.abc import Sequence
from typing import Literal
from urllib.parse import urlsplit

import httpx2
import msgspec

from app.simulators.pulse import Pulse
from app.simulators.web import Json, VendorError
from app.simulators.whapi_state import CHANNEL, Undelivered

MAX_QUEUE = 100_000
MAX_KEPT = 10_000
"""Undelivered webhooks that outlive the simulator: the oldest."""
MAX_TRACE = 1_000
MAX_HEADERS = 5

_encode = msgspec.json.Encoder().encode


class Event(msgspec.Struct, rename={"name": "event"}):
    """What a webhook is about: `{"type": "messages", "event": "post"}`."""

    type: str
    name: Literal["post", "put", "patch", "delete"] = "post"


class Subscribed(msgspec.Struct):
    """A kind of event that a webhook asks for, in the shape of the settings."""

    type: str
    method: str | None = None


class Webhook(msgspec.Struct, kw_only=True):
    """Where events go, in the shape of the settings; without `events`, all of them go there."""

    url: str
    headers: dict[str, str] = {}
    mode: Literal["body", "path", "method"] = "body"
    events: list[Subscribed] | None = None

    def __post_init__(self) -> None:
        """Refuse what the vendor refuses."""
        if not self.url.startswith(("http://", "https://")):
            msg = "url must start with http:// or https://"
            raise ValueError(msg)
        if len(self.headers) > MAX_HEADERS:
            msg = f"at most {MAX_HEADERS} headers"
            raise ValueError(msg)

    def wants(self, event: Event) -> bool:
        """Whether this webhook gets an event."""
        return self.events is None or any(
            wanted.type == event.type and wanted.method in (None, event.name)
            for wanted in self.events
        )


class Manners(msgspec.Struct, kw_only=True):
    """How the gateway delivers; times in seconds. The defaults are the vendor's."""

    channel: str = CHANNEL
    """The id that every webhook names."""
    first_delay: float = 3.0
    factor: float = 1.0
    """1 = the delay grows by `first_delay` each time, as the vendor's; more = it multiplies."""
    max_delay: float = 600.0
    duplicates: float = 0.0
    """The share of acknowledged deliveries that are delivered once more."""
    scatter: float = 0.0
    """Each delivery starts up to so much later: the order gets lost."""
    senders: int = 8
    """How many deliveries at once; 1 keeps the order."""
    patience: float = 10.0
    """How long an answer may take."""
    nodes: tuple[str, ...] = ()
    """Base addresses in the place of the webhook's own, one after another: a load balancer between.
    What a node does not take goes to the next."""
    echo: bool = True
    """Whether what the API sends comes back as a message of `source: api`."""
    statuses: tuple[str, ...] = ("sent", "delivered", "read")
    """What becomes of each message sent through the API, at once."""

    def __post_init__(self) -> None:
        """Refuse what could only be a mistake."""
        if min(self.first_delay, self.max_delay, self.scatter, self.duplicates) < 0:
            msg = "delays, scatter and duplicates cannot be negative"
            raise ValueError(msg)
        if self.senders < 1 or self.factor < 1 or self.patience <= 0:
            msg = "senders and factor are at least 1, patience is more than 0"
            raise ValueError(msg)
        if not all(node.startswith(("http://", "https://")) for node in self.nodes):
            msg = "each node's address starts with http:// or https://"
            raise ValueError(msg)

    def delay(self, attempts: int) -> float:
        """Return the wait before the next attempt, after so many."""
        grown = attempts if self.factor == 1.0 else self.factor ** min(attempts - 1, 64)
        return min(self.first_delay * grown, self.max_delay)


class Counts(msgspec.Struct):
    """What the postman did."""

    queued: int = 0
    attempts: int = 0
    delivered: int = 0
    refused: int = 0
    """Answered with anything but 200."""
    unreachable: int = 0
    """Not answered."""
    duplicates_sent: int = 0
    dropped: int = 0
    """Given up because the queue was full."""


class _Delivery:
    def __init__(self, webhook: Webhook, event: Event, body: bytes, number: int) -> None:
        self.webhook = webhook
        self.event = event
        self.body = body
        self.number = number
        self.due = 0.0
        self.attempts = 0
        self.duplicate = False

    def kept(self) -> Undelivered:
        """Return what outlives this process."""
        return Undelivered(self.event.type, self.event.name, self.body, self.attempts)

    def __lt__(self, other: "_Delivery") -> bool:
        return (self.due, self.number) < (other.due, other.number)


class Postman:
    """Delivers events at least once: retries for ever, with growing delay, until it reads a 200."""

    def __init__(self, rng: random.Random, undelivered: Sequence[Undelivered] = ()) -> None:
        """Deliver `undelivered`, which an earlier postman left, as soon as a webhook is set."""
        self._rng = rng
        self._left = list(undelivered)
        self._webhooks: list[Webhook] = []
        self.manners = Manners()
        self.counts = Counts()
        self.trace: deque[Json] = deque(maxlen=MAX_TRACE)
        self.changed = Pulse()
        self._queue: list[_Delivery] = []
        self._in_flight = 0
        self._requests = 0
        self._senders: set[asyncio.Task[None]] = set()
        self._client: httpx2.AsyncClient | None = None

    @property
    def webhooks(self) -> list[Webhook]:
        """Where events go."""
        return self._webhooks

    @webhooks.setter
    def webhooks(self, webhooks: Sequence[Webhook]) -> None:
        self._webhooks = list(webhooks)
        if self._webhooks:
            left, self._left = self._left, []
            for one in left:
                self.post_raw(Event(one.type, one.name), one.body, attempts=one.attempts)

    @property
    def pending(self) -> int:
        """How many deliveries wait or are under way."""
        return len(self._queue) + self._in_flight + len(self._left)

    @property
    def in_flight(self) -> int:
        """How many deliveries wait for their answer."""
        return self._in_flight

    def post(self, event: Event, content: Json) -> int:
        """Queue an event for each webhook that wants it; return for how many."""
        envelope = _encode({**content, "event": event, "channel_id": self.manners.channel})
        return self.post_raw(event, envelope)

    def post_raw(self, event: Event, body: bytes, *, attempts: int = 0) -> int:
        """Queue a body as it is, tried so often before; return for how many webhooks."""
        wanting = [webhook for webhook in self.webhooks if webhook.wants(event)]
        for webhook in wanting:
            self.counts.queued += 1
            delivery = _Delivery(webhook, event, body, self.counts.queued)
            delivery.attempts = attempts
            self._push(delivery, self._rng.uniform(0, self.manners.scatter))
        return len(wanting)

    async def drained(self, seconds: float) -> bool:
        """Wait until nothing is pending; False when `seconds` went by first."""
        return await self.changed.until(lambda: not self.pending, seconds)

    def retry_now(self) -> None:
        """Make everything that waits due: a test need not wait for the delays."""
        for delivery in self._queue:
            delivery.due = 0.0
        heapq.heapify(self._queue)
        self.changed.beat()

    def undelivered(self) -> list[Undelivered]:
        """Return what waits, oldest first, for the postman after the next start."""
        waiting = sorted(self._queue, key=lambda delivery: delivery.number)
        left = [*self._left, *(delivery.kept() for delivery in waiting)]
        return left[:MAX_KEPT]

    async def close(self) -> None:
        """Stop delivering; what waits, or was under way, stays undelivered."""
        senders = list(self._senders)
        for sender in senders:
            sender.cancel()
        await asyncio.gather(*senders, return_exceptions=True)
        if self._client is not None:
            await self._client.aclose()

    def _push(self, delivery: _Delivery, delay: float) -> None:
        if len(self._queue) >= MAX_QUEUE:
            self.counts.dropped += 1
            return
        delivery.due = time.monotonic() + delay if delay else 0.0
        heapq.heappush(self._queue, delivery)
        if len(self._senders) < min(self.manners.senders, self.pending):
            sender = asyncio.create_task(self._send_all())
            self._senders.add(sender)
        self.changed.beat()

    async def _send_all(self) -> None:
        """Deliver what is due, wait for what will be; ends when nothing waits."""
        try:
            await self._send()
        finally:  # at once: who finds nothing to do is not there for what is queued next
            self._senders -= {asyncio.current_task()}

    async def _send(self) -> None:
        while self._queue:
            if len(self._senders) > self.manners.senders:  # fewer are wanted now: not all may go
                return
            first = self._queue[0]
            wait = first.due - time.monotonic()
            if wait > 0:
                # Someone may queue an earlier one, take this one, or make it due.
                await self.changed.until(
                    lambda first=first, due=first.due: (  # type: ignore[misc]
                        not self._queue or self._queue[0] is not first or first.due != due
                    ),
                    wait,
                )
                continue
            heapq.heappop(self._queue)
            self._in_flight += 1
            try:
                await self._attempt(first)
            except asyncio.CancelledError:  # closing: nobody knows whether it arrived
                heapq.heappush(self._queue, first)
                raise
            finally:
                self._in_flight -= 1
                self.changed.beat()

    async def _attempt(self, delivery: _Delivery) -> None:
        delivery.attempts += 1
        self.counts.attempts += 1
        if delivery.duplicate and delivery.attempts == 1:
            self.counts.duplicates_sent += 1
        status = await self._request(delivery)
        self.trace.append(
            {
                "number": delivery.number,
                "event": delivery.event,
                "attempt": delivery.attempts,
                "duplicate": delivery.duplicate,
                "status": status,
                "at": time.time(),
            }
        )
        if status != httpx2.codes.OK:
            self._push(delivery, self.manners.delay(delivery.attempts))
            return
        self.counts.delivered += 1
        if not delivery.duplicate and self._rng.random() < self.manners.duplicates:
            again = _Delivery(delivery.webhook, delivery.event, delivery.body, delivery.number)
            again.duplicate = True
            self._push(again, self._rng.uniform(0, self.manners.first_delay))

    async def _request(self, delivery: _Delivery) -> int | None:
        """Return the status of the answer, None without one."""
        webhook, event = delivery.webhook, delivery.event
        url, verb = self._balanced(webhook.url), "POST"
        if webhook.mode == "path":
            url = f"{url.rstrip('/')}/{event.type}/{event.name}"
        if webhook.mode == "method":
            verb = event.name.upper()
        if self._client is None:
            limits = httpx2.Limits(max_connections=None, max_keepalive_connections=64)
            self._client = httpx2.AsyncClient(limits=limits, timeout=None)
        headers = {"content-type": "application/json", **webhook.headers}
        # Whatever it is, it is retried: a header that cannot be sent (ValueError), too, and a
        # socket that was closed right after it was connected (AttributeError).
        with contextlib.suppress(Exception):
            async with asyncio.timeout(self.manners.patience):
                answer = await self._client.request(
                    verb, url, content=delivery.body, headers=headers
                )
            if answer.status_code != httpx2.codes.OK:
                self.counts.refused += 1
            return answer.status_code
        self.counts.unreachable += 1
        return None

    def _balanced(self, url: str) -> str:
        """Return the address at the node whose turn it is, if there are several."""
        nodes = self.manners.nodes
        if not nodes:
            return url
        self._requests += 1
        return nodes[self._requests % len(nodes)].rstrip("/") + urlsplit(url).path


def event_of(body: bytes) -> Event:
    """Return what a raw body says it is about; `messages` `post` when it does not say."""
    with contextlib.suppress(msgspec.DecodeError, UnicodeDecodeError):
        envelope = msgspec.json.decode(body, type=dict[str, object])
        with contextlib.suppress(msgspec.ValidationError):
            return msgspec.convert(envelope.get("event"), Event)
    return Event("messages")


def webhooks_of(given: object) -> Sequence[Webhook]:
    """Return webhooks as settings name them. Raises VendorError 400."""
    try:
        return msgspec.convert(given, list[Webhook])
    except msgspec.ValidationError as wrong:
        msg = f"Wrong settings format: webhooks: {wrong}"
        raise VendorError(400, msg) from wrong

"""Facts in, events out: what a webhook says is sealed, decided and durable before it is answered.

A fact seen before appends nothing: its idempotency key is in the log, across processes, restarts
and restores. One fact that can never be recorded (`HOPELESS`) becomes `WebhookItemRejected` and its
neighbours are kept; whatever else goes wrong makes the whole delivery fail, to be delivered again.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable
from concurrent.futures import Executor
from itertools import islice
from typing import TypeVar

import msgspec
import structlog

from app.aggregates.events import Content, Presence
from app.aggregates.gateway import GATEWAY_STREAM, Gateway, GatewayState, is_early
from app.aggregates.user import User
from app.aggregates.user_state import UserState
from app.conversation import refs
from app.conversation.crash import CrashPoints
from app.conversation.facts import (
    NOTHING_ODD,
    DeleteFact,
    Delivery,
    EditFact,
    Fact,
    MessageFact,
    Odd,
    OtherFact,
    PresenceFact,
    RejectedFact,
    StatusFact,
)
from app.conversation.identities import Identities, user_stream
from app.conversation.leftovers import ODD, Leftovers
from app.conversation.repository import Repository, Settled
from eventstore.errors import AppendRejected, DuplicateKey, LogUnavailable, OutcomeUnknown
from eventstore.keyring import Keyring
from eventstore.sealing import Sealed, Sealer
from eventstore.store import LogReader
from eventstore.types import IdempotencyKey, StreamName

T = TypeVar("T")
_log = structlog.get_logger(__name__)
_encode_json = msgspec.json.Encoder().encode

TYPING = frozenset({"typing", "recording"})

AT_ONCE = 100
"""Facts of one body that are recorded together. Other webhooks get in between."""

FEW = 10
"""Facts of one body that are just appended: the log says which of them it has already.

Among more, on one stream, each that is refused would have those after it decided again, so the
log is asked before."""

HOPELESS = (
    ValueError,  # with it UnicodeError and msgspec's errors: a text that cannot be encoded
    TypeError,
    LookupError,
    ArithmeticError,  # a time or a size out of range
    RecursionError,
    AppendRejected,  # too large for the log, today and tomorrow
)
"""What an item itself may raise, the same each time it comes: it is rejected.

Anything else says nothing of the item. A file that is locked or full, a key that is missing until
its backup is restored, a thread that is gone: acknowledging would lose the message for ever, and
delivering it again costs a request. So would a bug of another type; it is tried again for as long
as the gateway does, and each time logged.
"""


class Receiver:
    """Records what one bot's gateway says. Belongs to one event loop."""

    def __init__(  # noqa: PLR0913 - the composition root's parts
        self,
        *,
        users: Repository[User, UserState],
        gateway: Repository[Gateway, GatewayState],
        identities: Identities,
        keyring: Keyring,
        sealer: Sealer,
        log: LogReader,
        readers: Executor,
        crash: CrashPoints,
        channel: str = "",
    ) -> None:
        """Take the parts; nothing is read or written before the first delivery.

        `channel` is the bot's, as its messenger knows it: sent and received ids must agree.
        """
        self._channel = channel
        self._users = users
        self._gateway = gateway
        self._identities = identities
        self._fingerprint = keyring.fingerprint
        self._sealer = sealer
        self._log = log
        self._readers = readers
        self._crash = crash
        self.counts: Counter[str] = Counter()
        """Facts by outcome, for metrics: a bounded set of names."""
        self._leftovers = Leftovers(
            gateway, identities, sealer, keyring.fingerprint, channel, self._ask_first, self.counts
        )

    async def __call__(self, delivery: Delivery) -> Odd:
        """Return when every fact is durable, and tell which of them were odd.

        Raises `LogUnavailable` if the log cannot be written.
        After an error the gateway delivers the body again: what is recorded already is then a
        duplicate.
        """
        facts = delivery.facts
        if len(facts) == 1:
            return await self._take_one(delivery, 0, facts[0])
        odd = await _some_at_once(
            self._take_one(delivery, index, fact) for index, fact in enumerate(facts)
        )
        return Odd(sum(one.rejected for one in odd), sum(one.other for one in odd))

    def at_once(self, delivery: Delivery, done: Callable[[bool], None]) -> bool:
        """Take a delivery without a task, if it is what most are: one message of somebody known.

        True: `done(recorded)` will be called from the event loop, True when the message is
        durable. False, from either: nothing has been said about it; await the receiver itself,
        which tells why.
        """
        facts = delivery.facts
        fact = facts[0] if len(facts) == 1 else None
        if type(fact) is not MessageFact or fact.origin != "person":
            return False
        try:
            pseudonym = self._identities.known(fact.person)
            if pseudonym is None:
                return False
            stream = user_stream(pseudonym)
            content = self._sealer.seal_at_hand(pseudonym, stream, "content", _content(fact))
            if content is None:
                return False
            ref = self._ref(delivery, fact.id)
            return self._users.record_at_once(
                stream,
                self._recording(delivery, fact, ref, pseudonym, content),
                self._telling(ref, done),
            )
        except Exception:  # noqa: BLE001 - nothing was queued: the long way will meet it again
            return False

    def _telling(self, ref: IdempotencyKey, done: Callable[[bool], None]) -> Settled:
        """Return what is to be done when a message of a person is durable, or is not."""

        def settled(error: BaseException | None) -> None:
            done(error is None and self._recorded(ref))

        return settled

    def _recorded(self, ref: IdempotencyKey) -> bool:
        """Count a person's message; tell whether nothing of it is left to do."""
        self.counts["message_person"] += 1
        self._crash.reach("after_message_received")
        gateway = self._gateway.state(GATEWAY_STREAM)
        return gateway is not None and not is_early(gateway, ref)

    async def _take_one(self, delivery: Delivery, index: int, fact: Fact) -> Odd:
        kind = type(fact).__name__
        odd = ODD.get(type(fact), NOTHING_ODD)  # a duplicate as much as the first
        try:
            try:
                await self._take(delivery, index, fact)
            except HOPELESS as error:  # one bad item must not hold up its neighbours
                _log.exception("WEBHOOK_ITEM_REJECTED", kind=kind)
                odd = ODD[RejectedFact]
                rejected = RejectedFact(f"{kind}: {type(error).__name__}", _encode_json(fact))
                await self._leftovers.reject(delivery, index, rejected)
        except DuplicateKey:
            self.counts["duplicate"] += 1
        except (LogUnavailable, OutcomeUnknown):
            raise
        except Exception as error:
            _log.exception("WEBHOOK_ITEM_FAILED", kind=kind, error=type(error).__name__)
            msg = f"{kind} cannot be recorded now: {type(error).__name__}"
            raise LogUnavailable(msg) from error
        return odd

    async def _take(self, delivery: Delivery, index: int, fact: Fact) -> None:
        match fact:
            case MessageFact():
                await self._take_message(delivery, fact)
            case PresenceFact():
                await self._take_presence(fact)
            case StatusFact():
                await self._take_status(delivery, index, fact)
            case EditFact():
                await self._take_edit(delivery, fact)
            case DeleteFact():
                await self._take_delete(delivery, fact)
            case OtherFact():
                await self._leftovers.keep(delivery, index, fact)
            case RejectedFact():
                await self._leftovers.reject(delivery, index, fact)

    # -- messages --------------------------------------------------------------------------------

    async def _take_message(self, delivery: Delivery, fact: MessageFact) -> None:
        ref = self._ref(delivery, fact.id)
        pseudonym = await self._identities.pseudonym(fact.person)
        stream = user_stream(pseudonym)
        content = self._sealer.seal(pseudonym, stream, "content", _content(fact))
        record = self._recording(delivery, fact, ref, pseudonym, content)
        try:
            await self._ask_first(delivery, ref)
            if fact.origin == "bot":
                await self._users.record(stream, record, absent=(ref,))
            else:
                await self._users.record(stream, record)
        except DuplicateKey:
            if fact.origin == "person":  # whoever took it first may have died before this
                await self._apply_early_delete(stream, delivery, ref)
            raise
        self.counts[f"message_{fact.origin}"] += 1
        self._crash.reach("after_message_received")
        if fact.origin == "person":
            await self._apply_early_delete(stream, delivery, ref)

    def _recording(
        self,
        delivery: Delivery,
        fact: MessageFact,
        ref: IdempotencyKey,
        pseudonym: str,
        content: Sealed[Content],
    ) -> Callable[[User], None]:
        """Return what a message does to its user."""
        at = fact.at or None
        now = self._log.now()

        def record(user: User) -> None:
            self._register(user, delivery, fact.chat_id, pseudonym)
            if fact.origin == "person":
                user.receive_message(
                    ref, fact.kind, content, answerable=fact.answerable, at=at, now=now
                )
            elif fact.origin == "human":
                user.human_wrote(ref, content, at=at, now=now)
            else:
                key = refs.echo_key(self._fingerprint, delivery.gateway, self._channel, fact.id)
                user.echo_observed(ref, content, key=key, at=at, now=now)

        return record

    async def _apply_early_delete(
        self, stream: StreamName, delivery: Delivery, ref: IdempotencyKey
    ) -> None:
        gateway = self._gateway.peek(GATEWAY_STREAM)
        if gateway is None:
            gateway = await self._gateway.look(GATEWAY_STREAM)
        if not gateway.is_early(ref):
            return
        with contextlib.suppress(DuplicateKey):
            await self._delete(stream, delivery, ref)
        await self._gateway.record(GATEWAY_STREAM, lambda g: g.apply_early_delete(ref))

    async def _take_edit(self, delivery: Delivery, fact: EditFact) -> None:
        message = fact.message
        ref = self._ref(delivery, fact.id)
        pseudonym = await self._identities.pseudonym(message.person)
        stream = user_stream(pseudonym)
        content = self._sealer.seal(pseudonym, stream, "content", _content(message))
        key = self._fingerprint(
            "edit", delivery.gateway, self._channel, fact.id, message.text, message.kind
        )
        early = await self._find(ref) is None
        now = self._log.now()

        def record(user: User) -> None:
            self._register(user, delivery, message.chat_id, pseudonym)
            user.edit_message(ref, content, key=key, early=early, at=message.at or None, now=now)

        await self._users.record(stream, record)
        self.counts["edit"] += 1

    async def _take_delete(self, delivery: Delivery, fact: DeleteFact) -> None:
        await _some_at_once(
            self._take_delete_of(delivery, self._ref(delivery, message_id))
            for message_id in dict.fromkeys(fact.ids)
        )

    async def _take_delete_of(self, delivery: Delivery, ref: IdempotencyKey) -> None:
        stream = await self._find(ref)
        try:
            if stream is not None:
                await self._delete(stream, delivery, ref)
            else:
                await self._remember_early_delete(ref)
                # The message may have come in meanwhile, and not have seen this.
                stream = await self._find(ref)
                if stream is not None:
                    await self._apply_early_delete(stream, delivery, ref)
        except DuplicateKey:
            self.counts["duplicate"] += 1
        self.counts["delete"] += 1

    async def _remember_early_delete(self, ref: IdempotencyKey) -> None:
        await self._gateway.record(
            GATEWAY_STREAM, lambda gateway: gateway.remember_early_delete(ref)
        )

    async def _delete(self, stream: StreamName, delivery: Delivery, ref: IdempotencyKey) -> None:
        key = self._fingerprint("deleted", delivery.gateway, self._channel, ref.hex())
        now = self._log.now()
        await self._users.record(stream, lambda user: user.delete_message(ref, key=key, now=now))

    # -- statuses and presences -------------------------------------------------------------------

    async def _take_status(self, delivery: Delivery, index: int, fact: StatusFact) -> None:
        ref = self._ref(delivery, fact.id)
        if fact.person is not None:
            stream = user_stream(await self._identities.pseudonym(fact.person))
        else:
            found = await self._find(ref)
            if found is None:
                lost = OtherFact("statuses.unknown_message", _encode_json(fact))
                await self._leftovers.keep(delivery, index, lost)
                return
            stream = found
        key = self._fingerprint("status", delivery.gateway, self._channel, fact.id, fact.status)
        await self._ask_first(delivery, key)
        now = self._log.now()
        await self._users.record(
            stream,
            lambda user: user.status_changed(
                ref, fact.status, key=key, at=fact.at or None, now=now
            ),
        )
        self.counts["status"] += 1

    async def _take_presence(self, fact: PresenceFact) -> None:
        self.counts["presence"] += 1
        if fact.presence not in TYPING:
            return
        pseudonym = self._identities.known(fact.person)
        if pseudonym is None:
            return  # whoever waits for an answer has written to us and is in memory
        now = self._log.now()
        presence: Presence = "recording" if fact.presence == "recording" else "typing"
        await self._users.record(
            user_stream(pseudonym), lambda user: user.observe_typing(presence, now=now)
        )

    # -- small parts ------------------------------------------------------------------------------

    def _ref(self, delivery: Delivery, message_id: str) -> IdempotencyKey:
        return refs.message_ref(self._fingerprint, delivery.gateway, self._channel, message_id)

    def _register(self, user: User, delivery: Delivery, chat_id: str, pseudonym: str) -> None:
        if user.state.contact is None:
            stream = user_stream(pseudonym)
            chat = self._sealer.seal(pseudonym, stream, "chat", chat_id)
            user.register(delivery.gateway, chat, now=self._log.now())

    async def _ask_first(self, delivery: Delivery, key: IdempotencyKey) -> None:
        """Raise `DuplicateKey` if the log has one of many facts already."""
        if len(delivery.facts) > FEW and await self._find(key) is not None:
            raise DuplicateKey(key)

    async def _find(self, ref: IdempotencyKey) -> StreamName | None:
        """Return the stream that holds a message, from the log itself."""
        loop = asyncio.get_running_loop()
        event = await loop.run_in_executor(self._readers, self._log.event_by_key, ref)
        return None if event is None else event.stream


async def _some_at_once(work: Iterable[Awaitable[T]]) -> list[T]:
    """Do all of it in its order, `AT_ONCE` together; raise the first error of those."""
    rest = iter(work)
    results: list[T] = []
    while some := tuple(islice(rest, AT_ONCE)):
        for result in await asyncio.gather(*some, return_exceptions=True):
            if isinstance(result, BaseException):
                raise result
            results.append(result)
    return results


def _content(fact: MessageFact) -> Content:
    return Content(
        message_id=fact.id,
        chat_id=fact.chat_id,
        text=fact.text,
        name=fact.name,
        quoted_id=fact.quoted_id,
        media=fact.media,
        raw=fact.raw,
    )

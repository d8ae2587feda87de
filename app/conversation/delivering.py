"""A reply, part by part, to the gateway: recorded before, recorded after, never guessed.

A send cannot be fenced and has no idempotency key. So each part is announced by
`DeliveryStarted` with a deadline that is later than the send's own time-out. Whoever finds a part
in flight, this process after a time-out or a successor after a crash, waits for the deadline and
a margin, and then looks for what was sent: the echo, then the gateway's list. What is found is
adopted; what the list does not show was not sent, and is sent. While the gateway cannot say, the
part waits in `Doubts`, without a worker; if it still cannot in the end, it is `DeliveryUncertain`
and, by default, not sent again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import Executor
from typing import TypeVar

import structlog

from app.aggregates.answers import PartStarted
from app.aggregates.events import (
    Adopted,
    Content,
    MessageEchoed,
    Reply,
    RunCompleted,
    SentMessage,
    TurnParked,
)
from app.aggregates.open_work import Delivery
from app.aggregates.user import User
from app.aggregates.user_state import UserState
from app.conversation.backoff import delay
from app.conversation.crash import CrashPoints
from app.conversation.doubts import Doubts
from app.conversation.kinds import USER_CODEC
from app.conversation.nodes import Nodes
from app.conversation.policy import SECOND, TurnPolicy, micros
from app.conversation.ports import (
    Messenger,
    SendDeferred,
    SendError,
    SendOutcomeUnknown,
    SendRefused,
)
from app.conversation.refs import echo_key, message_ref
from app.conversation.repository import Repository
from eventstore.errors import DuplicateKey
from eventstore.sealing import Sealed, Sealer
from eventstore.store import LogReader
from eventstore.types import IdempotencyKey, Recorded, StreamName, Version

_log = structlog.get_logger(__name__)
R = TypeVar("R")

MAX_ATTEMPTS = 8
"""Starts of one part before it is given up as refused."""

GIVE_UP = 300 * SECOND
"""How long after its deadline the gateway may leave us in doubt about a part."""


class Delivering:
    """Hands over what is open on a stream. Belongs to one event loop."""

    def __init__(  # noqa: PLR0913 - the composition root's parts
        self,
        *,
        users: Repository[User, UserState],
        messenger: Messenger,
        log: LogReader,
        readers: Executor,
        sealer: Sealer,
        fingerprint: Callable[..., IdempotencyKey],
        policy: TurnPolicy,
        nodes: Nodes,
        crash: CrashPoints,
        jitter: Callable[[], float],
    ) -> None:
        """Take the parts."""
        self._nodes = nodes
        self._users = users
        self._messenger = messenger
        self._log = log
        self._readers = readers
        self._sealer = sealer
        self._fingerprint = fingerprint
        self._policy = policy
        self._crash = crash
        self._jitter = jitter
        self._doubts = Doubts(jitter)

    def due_at(self, delivery: Delivery) -> int:
        """Return when the delivery can go on (µs)."""
        if delivery.in_flight is not None:
            margin = self._policy.margin
            again = self._doubts.due_at(delivery)
            return max(delivery.retry_at, delivery.in_flight + margin, again)
        return delivery.retry_at

    async def typing(self, stream: StreamName, user: User) -> None:
        """Show that an answer is being written; best effort."""
        chat = await self._in_reader(self._chat, stream, user)
        await self._messenger.show_typing(chat)

    async def finish(self, stream: StreamName, run: str = "", parts: tuple[str, ...] = ()) -> None:
        """Deliver what is open until it is done, must wait (`due_at`), or is another's.

        `parts` saves opening the sealed reply of `run` again when the caller has just made it.
        """
        while True:
            user = await self._users.look(stream)
            delivery = user.state.delivery
            if delivery is None or not self._may_go_on(delivery):
                return
            if delivery.run != run:
                run = delivery.run
                parts = await self._in_reader(self._open_reply, stream, delivery)
            text = parts[delivery.next_part]
            chat = await self._in_reader(self._chat, stream, user)
            if delivery.in_flight is None:
                await self._send(stream, delivery, chat, text)
            else:
                await self._settle(stream, delivery, chat, text)

    def _may_go_on(self, delivery: Delivery) -> bool:
        """Tell whether now is the time, and this node lives and holds what it is to deliver."""
        if not self._nodes.may_work or delivery.incarnation not in {"", self._nodes.incarnation}:
            return False
        return self.due_at(delivery) <= self._log.now()

    # -- sending ----------------------------------------------------------------------------------

    async def _send(self, stream: StreamName, delivery: Delivery, chat: str, text: str) -> None:
        run, part = delivery.run, delivery.next_part
        now = self._log.now()
        deadline = now + self._policy.send
        started = await self._users.decide(
            stream,
            lambda user: user.delivery_started(
                run,
                part,
                deadline=deadline,
                incarnation=self._nodes.incarnation,
                now=self._log.now(),
            ),
        )
        if not isinstance(started, PartStarted):
            return  # somebody else has moved it: look again
        self._crash.reach("after_delivery_started")
        attempt, latest = started.attempt, deadline - self._policy.send_timeout
        try:
            # A process that was stopped since the append, and goes on only now, must not send: its
            # successor may have looked for the part, and sent it.
            message_id = await self._messenger.send_text(
                chat, text, still=lambda: self._log.now() <= latest
            )
        except SendRefused as error:
            await self._failed(stream, delivery, error, attempt=attempt, retry_at=None)
        except SendDeferred as error:
            wait = delay(attempt, retry_after=error.retry_after, jitter=self._jitter())
            retry_at = None if attempt >= MAX_ATTEMPTS else self._log.now() + micros(wait)
            await self._failed(stream, delivery, error, attempt=attempt, retry_at=retry_at)
        except SendOutcomeUnknown as error:
            # It may be out. It stays in flight: after the deadline somebody finds out.
            _log.warning("SEND_OUTCOME_UNKNOWN", userId=_owner(stream), code=error.code)
        else:
            self._crash.reach("before_message_sent")
            await self._record_sent(stream, delivery, message_id, adopted="")
            self._crash.reach("after_message_sent")

    async def _record_sent(
        self, stream: StreamName, delivery: Delivery, message_id: str, *, adopted: Adopted
    ) -> None:
        ref = self._ref(message_id)
        sent = await self._in_reader(self._seal_sent, stream, SentMessage(message_id=message_id))

        def record(key: IdempotencyKey | None) -> Callable[[User], object]:
            return lambda user: user.message_sent(
                delivery.run,
                delivery.next_part,
                ref=ref,
                key=key,
                sent=sent,
                adopted=adopted,
                now=self._log.now(),
            )

        try:
            await self._users.decide(stream, record(ref))
        except DuplicateKey:
            # The gateway showed the message first, as if a human had sent it: the key is taken.
            await self._users.decide(stream, record(None))

    async def _failed(
        self,
        stream: StreamName,
        delivery: Delivery,
        error: SendError,
        *,
        attempt: int,
        retry_at: int | None,
    ) -> None:
        await self._users.decide(
            stream,
            lambda user: user.delivery_failed(
                delivery.run,
                delivery.next_part,
                error.code,
                attempt=attempt,
                retry_at=retry_at,
                now=self._log.now(),
            ),
        )
        level = _log.error if retry_at is None else _log.warning
        level("DELIVERY_FAILED", userId=_owner(stream), code=error.code, retry_at=retry_at)

    # -- finding out ------------------------------------------------------------------------------

    async def _settle(self, stream: StreamName, delivery: Delivery, chat: str, text: str) -> None:
        """Find out what became of a part in flight: sent, surely not sent, uncertain, or later."""
        echoed = await self._in_reader(self._echoed, stream, delivery, text)
        if echoed is not None:
            self._doubts.settle(delivery)
            await self._record_sent(stream, delivery, echoed, adopted="echo")
            return
        if self._doubts.crowded:
            self._doubts.put_off(delivery, now=self._log.now(), retry_after=None)
            return
        try:
            with self._doubts.look():
                listed = await self._messenger.sent_since(chat, delivery.touched_at)
        except SendError as error:
            await self._in_doubt(stream, delivery, error)
            return
        self._doubts.settle(delivery)
        for message in listed:
            same = message.text.strip() == text.strip()
            if same and not await self._in_reader(self._is_known, message.id, delivery):
                await self._record_sent(stream, delivery, message.id, adopted="list")
                return
        await self._not_sent(stream, delivery)

    async def _in_doubt(self, stream: StreamName, delivery: Delivery, error: SendError) -> None:
        """Look again later, or give up: the gateway could not say what was sent."""
        now = self._log.now()
        if now <= (delivery.in_flight or 0) + self._policy.margin + GIVE_UP:
            self._doubts.put_off(delivery, now=now, retry_after=error.retry_after)
            _log.warning("DELIVERY_IN_DOUBT", userId=_owner(stream), code=error.code)
            return
        self._doubts.settle(delivery)
        if self._policy.resend_uncertain:
            await self._not_sent(stream, delivery)
            return
        await self._users.decide(
            stream,
            lambda user: user.delivery_uncertain(
                delivery.run,
                delivery.next_part,
                attempt=delivery.attempt,
                now=self._log.now(),
            ),
        )
        _log.error("DELIVERY_UNCERTAIN", userId=_owner(stream))

    async def _not_sent(self, stream: StreamName, delivery: Delivery) -> None:
        """Let the part be started again, unless somebody else has found out meanwhile."""
        now = self._log.now()
        await self._users.decide(
            stream,
            lambda user: user.delivery_failed(
                delivery.run,
                delivery.next_part,
                "not_in_list",
                attempt=delivery.attempt,
                retry_at=now,
                now=now,
            ),
        )

    def _is_known(self, message_id: str, delivery: Delivery) -> bool:
        """Tell whether a listed message is another one: it has its own event, or an older echo."""
        if self._log.event_by_key(self._ref(message_id)) is not None:
            return True
        messenger = self._messenger
        key = echo_key(self._fingerprint, messenger.name, messenger.channel, message_id)
        echo = self._log.event_by_key(key)
        return echo is not None and echo.recorded_at < delivery.touched_at

    def _echoed(self, stream: StreamName, delivery: Delivery, text: str) -> str | None:
        for sign in delivery.signs:
            if sign.how != "echo":
                continue
            recorded = _event(self._log, stream, sign.version)
            event = USER_CODEC.decode(recorded.type, recorded.state)
            if not isinstance(event, MessageEchoed):
                continue
            content = self._sealer.open(_owner(stream), stream, "content", event.content, Content)
            if content.text.strip() == text.strip():
                return content.message_id
        return None

    # -- small parts ------------------------------------------------------------------------------

    def _open_reply(self, stream: StreamName, delivery: Delivery) -> tuple[str, ...]:
        recorded = _event(self._log, stream, delivery.version)
        event = USER_CODEC.decode(recorded.type, recorded.state)
        sealed = None
        if isinstance(event, RunCompleted):
            sealed = event.reply
        elif isinstance(event, TurnParked):
            sealed = event.apology
        if sealed is None:
            msg = f"event {delivery.version} of {stream} holds no reply"
            raise LookupError(msg)
        return self._sealer.open(_owner(stream), stream, "reply", sealed, Reply).parts

    def _chat(self, stream: StreamName, user: User) -> str:
        contact = user.state.contact
        if contact is None:
            msg = f"{stream} has no contact"
            raise LookupError(msg)
        return self._sealer.open(_owner(stream), stream, "chat", contact.chat, str)

    def _seal_sent(self, stream: StreamName, sent: SentMessage) -> Sealed[SentMessage]:
        return self._sealer.seal(_owner(stream), stream, "sent", sent)

    def _ref(self, message_id: str) -> IdempotencyKey:
        messenger = self._messenger
        return message_ref(self._fingerprint, messenger.name, messenger.channel, message_id)

    async def _in_reader(self, work: Callable[..., R], *arguments: object) -> R:
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._readers, work, *arguments)


def _event(log: LogReader, stream: StreamName, version: int) -> Recorded:
    return log.read_stream(stream, after=Version(version - 1), up_to=Version(version))[0]


def _owner(stream: StreamName) -> str:
    return stream.partition("/")[2]

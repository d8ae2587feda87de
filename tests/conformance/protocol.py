"""Nodes made of the real parts of a turn, whose every append and every call is let through by hand.

Between two of a node's steps anything may happen: time, other nodes, its death. A node that is not
let on is a process that was stopped; what it asked for waits, as it would in a stopped process.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncGenerator, Callable, Sequence
from concurrent.futures import Executor, Future
from functools import partial
from typing import Any, Literal, ParamSpec, TypeVar, cast

from app.aggregates import BufferPolicy, due_at
from app.aggregates import events as e
from app.aggregates.user_state import BLANK, UserState, evolve
from app.conversation.activity import Activity
from app.conversation.crash import CrashPoints
from app.conversation.delivering import Delivering
from app.conversation.kinds import CODEC, USERS
from app.conversation.nodes import Nodes
from app.conversation.policy import TurnPolicy
from app.conversation.ports import (
    Answer,
    Messenger,
    ModelProvider,
    Said,
    SendDeferred,
    SendOutcomeUnknown,
    SentPart,
    Submitted,
    Unreachable,
    Usage,
)
from app.conversation.repository import Repository
from app.conversation.turn import Turns
from eventstore.group_commit import Done
from eventstore.keyring import Keyring
from eventstore.sealing import Sealer
from eventstore.store import Beat, LogReader, LogStore
from eventstore.types import Append, Appended, Micros, StreamName
from eventstore.writer import LogWriter, Request

P = ParamSpec("P")
T = TypeVar("T")
SECOND = 1_000_000
Outcome = Literal["ok", "unknown, done", "unknown, not done", "no"]

POLICY = TurnPolicy(
    buffer=BufferPolicy(),
    attempts=3,
    thread_age=90 * 86_400 * SECOND,
    busy=60 * SECOND,
    send=15 * SECOND,
    send_timeout=10 * SECOND,
    margin=5 * SECOND,
    orphan_start=5,
    orphan_every=15,
    recovery_seconds=45,
    resend_uncertain=False,
    apology="perdón",
)


class Inline(Executor):
    """Runs what it is given at once, so that nothing depends on threads."""

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        future: Future[T] = Future()
        try:
            future.set_result(fn(*args, **kwargs))
        except Exception as error:  # noqa: BLE001 - its caller's affair
            future.set_exception(error)
        return future


class Estimated:
    """A log whose time one node estimates a little wrongly."""

    def __init__(self, log: LogStore, off: int) -> None:
        self._log = log
        self._off = off

    def now(self) -> Micros:
        return Micros(self._log.now() + self._off)

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401 - whatever a log has
        return getattr(self._log, name)


class Step:
    """What a node asked for and has not got yet."""

    def __init__(self, what: str, go: Callable[[Outcome], None]) -> None:
        self.what = what
        self.go = go


class ByHand(LogWriter):
    """A writer whose appends are let through one by one; it knows who wrote what."""

    waiting = 0
    busy_seconds = 0.0

    def __init__(self, store: LogStore, steps: list[Step], wrote: set[bytes]) -> None:
        super().__init__()
        self._store = store
        self._steps = steps
        self._wrote = wrote

    def send(
        self,
        request: Request,
        done: Done[Appended | None],
        loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        if isinstance(request, Append):
            self._steps.append(Step("append", partial(self._append, request, done)))
        elif isinstance(request, Beat):
            self._store.append_batch([], [], [request])
            done(None)

    def _append(self, append: Append, done: Done[Appended | None], _: Outcome) -> None:
        (answer,) = self._store.append_batch([append])
        if isinstance(answer, Appended):
            self._wrote.add(append.append_id)
        done(answer)

    def close(self) -> None:
        """Nothing waits on another thread."""


class Outside:
    """OpenAI and the gateway as they are: what they did is done, whoever hears of it."""

    def __init__(self) -> None:
        self.sent: list[SentPart] = []
        self.billed: dict[str, str] = {}
        """Responses that were billed, and the run that asked for each."""

    def answer(self, response: str) -> Answer:
        run = self.billed[response]
        words = 200 if int(response.partition("_")[2]) % 3 else 1  # every third in one part
        text = " ".join(f"{run}-{word}" for word in range(words))
        return Answer(response, "completed", text, Usage(10, 6, 4), "model", f"item_{response}")


class Hands:
    """One node's provider and messenger: each call is a step of its own."""

    name, channel = "whapi", "channel"

    def __init__(self, outside: Outside, steps: list[Step], now: Callable[[], Micros]) -> None:
        self._outside = outside
        self._steps = steps
        self._now = now

    def _step(self, what: str, do: Callable[[Outcome], T]) -> asyncio.Future[T]:
        future: asyncio.Future[T] = asyncio.get_running_loop().create_future()

        def go(outcome: Outcome) -> None:
            try:
                future.set_result(do(outcome))
            except Exception as error:  # noqa: BLE001 - its caller's affair
                future.set_exception(error)

        self._steps.append(Step(what, go))
        return future

    # the model provider

    async def start_thread(self, metadata: dict[str, str]) -> str:
        return await self._step("thread", lambda _: f"conv_{metadata['run']}")

    async def fill_thread(self, thread: str, history: Sequence[Said]) -> str | None:
        raise AssertionError((thread, history))

    async def run(
        self, *, thread: str, texts: tuple[str, ...], run: str, user: str
    ) -> AsyncGenerator[Submitted | Answer, None]:
        assert thread
        assert texts
        assert user

        def submit(outcome: Outcome) -> str:
            response = f"resp_{len(self._outside.billed)}"
            if outcome != "unknown, not done":
                self._outside.billed[response] = run
            if outcome != "ok":
                code = "cut"
                raise Unreachable(code, billed=True)
            return response

        response = await self._step("ask", submit)
        yield Submitted(response)
        yield await self._step("answer", lambda outcome: self._answer(response, outcome))

    def _answer(self, response: str, outcome: Outcome) -> Answer:
        if outcome != "ok":
            code = "cut"
            raise Unreachable(code, billed=True)
        return self._outside.answer(response)

    async def retrieve(self, response: str) -> Answer:
        return await self._step("retrieve", lambda outcome: self._answer(response, outcome))

    async def cancel(self, response: str) -> None:
        raise AssertionError(response)

    async def items_after(self, thread: str, item: str | None) -> tuple[str, ...]:
        del thread, item
        return await self._step("items", lambda _: ())

    async def is_empty(self, thread: str) -> bool:
        return not thread

    async def delete_item(self, thread: str, item: str) -> None:
        raise AssertionError((thread, item))

    # the messenger

    async def send_text(
        self, chat: str, text: str, *, quoted: str = "", still: Callable[[], bool] | None = None
    ) -> str:
        assert chat
        assert not quoted

        def send(outcome: Outcome) -> str:
            code = "outcome"
            if outcome == "no" or (still is not None and not still()):
                raise SendDeferred(code)
            number = f"m{len(self._outside.sent)}"
            if outcome != "unknown, not done":
                self._outside.sent.append(SentPart(number, text, self._now()))
            if outcome != "ok":
                raise SendOutcomeUnknown(code)
            return number

        return await self._step("send", send)

    async def show_typing(self, chat: str) -> None:
        del chat

    async def sent_since(self, chat: str, since: int) -> tuple[SentPart, ...]:
        del chat, since

        def listed(outcome: Outcome) -> tuple[SentPart, ...]:
            if outcome != "ok":
                code = "outcome"
                raise SendOutcomeUnknown(code)
            return tuple(self._outside.sent)

        return await self._step("list", listed)


class Node:
    """One process: its memory, its steps, its idea of the time."""

    def __init__(
        self, name: str, start: int, *, store: LogStore, off: int, keys: Keyring, outside: Outside
    ) -> None:
        self.name = name
        self.off = off
        self.store = store
        self.steps: list[Step] = []
        self.wrote: set[bytes] = set()
        self.incarnation = f"{name}{start}"
        readers, log = Inline(), cast("LogReader", Estimated(store, off))
        self.log = log
        writer = ByHand(store, self.steps, self.wrote)
        self.users = Repository(USERS, log=log, writer=writer, readers=readers)
        self.nodes = Nodes(
            node=name,
            release="1",
            log=log,
            writer=writer,
            readers=readers,
            incarnation=self.incarnation,
        )
        hands = Hands(outside, self.steps, log.now)
        sealer, crash = Sealer(keys), CrashPoints()
        self.delivering = Delivering(
            users=self.users,
            messenger=cast("Messenger", hands),
            log=log,
            readers=readers,
            sealer=sealer,
            fingerprint=keys.fingerprint,
            policy=POLICY,
            nodes=self.nodes,
            crash=crash,
            jitter=lambda: 0.5,
        )
        self.turns = Turns(
            users=self.users,
            provider=cast("ModelProvider", hands),
            delivering=self.delivering,
            activity=Activity(users=self.users, now=log.now, delay=POLICY.activity, crash=crash),
            log=log,
            readers=readers,
            sealer=sealer,
            nodes=self.nodes,
            policy=POLICY,
            crash=crash,
            jitter=lambda: 0.5,
        )
        self.at_work: dict[StreamName, asyncio.Task[None]] = {}

    async def visit(self, stream: StreamName) -> bool:
        """Begin what the agenda says is due, as the dispatcher would; return whether it is."""
        if stream in self.at_work and not self.at_work[stream].done():
            return False
        if not self.nodes.may_work:
            return False
        state = (await self.users.look(stream)).state
        due = self.turns.agenda.due_at(stream, state)
        run = state.run
        put_off = run is not None and self.nodes.is_mine(run.node, run.incarnation)
        if not put_off and (due is None or due > self.log.now()):
            return False
        self.at_work[stream] = asyncio.ensure_future(self.turns.work(stream))
        return True

    def failures(self) -> list[BaseException]:
        """Return how visits failed: none should."""
        ended = [task for task in self.at_work.values() if task.done() and not task.cancelled()]
        return [error for task in ended if (error := task.exception()) is not None]

    async def die(self) -> None:
        """End as a power cut would: nothing that was asked for is heard of."""
        for task in self.at_work.values():
            task.cancel()
        await asyncio.gather(*self.at_work.values(), return_exceptions=True)
        self.steps.clear()


class Judge:
    """Reads the log as it grows, and holds every event to the protocol."""

    def __init__(self, log: LogStore, slack: int) -> None:
        self._log = log
        self._slack = slack
        self._position = 0
        self.states: dict[StreamName, UserState] = {}
        self.answered: Counter[tuple[StreamName, int]] = Counter()
        self.accounted: Counter[str] = Counter()
        """Runs whose cost is in the log, or is said to be unknown."""

    def look(self, wrote: dict[bytes, str], outside: Outside) -> None:
        """Check what is new. `wrote` tells which incarnation made an append."""
        for row in self._log.read(after=cast("Any", self._position), limit=10_000):
            self._position = row.position
            event = CODEC.decode(row.type, row.state)
            before = self.states.get(row.stream, BLANK)
            self._check(row.stream, before, event, row.recorded_at, wrote.get(row.append_id, ""))
            after = evolve(before, event, row.version, row.recorded_at)
            self.states[row.stream] = after
        parts = Counter(part.text for part in outside.sent)
        assert not [text for text, times in parts.items() if times > 1], "a part was sent twice"

    def _check(
        self, stream: StreamName, before: UserState, event: object, at: int, writer: str
    ) -> None:
        run, delivery = before.run, before.delivery
        match event:
            case e.RunStarted():
                assert run is None, "2: one run at a time"
                assert delivery is None, "2: no run while a reply is delivered"
                assert event.incarnation == writer
                due = due_at(before, POLICY.buffer)
                assert due is not None, "6: nothing was due"
                assert due <= at + self._slack, "6: late, never early"
            case e.TurnTakenOver():
                holder = run if run is not None else delivery
                assert holder is not None
                assert holder.incarnation == event.before != event.incarnation == writer
            case e.RunSubmitted() | e.RunCompleted() | e.RunFailed() | e.RunCancelled():
                assert run is not None, "3: it lost its turn"
                assert (run.id, run.incarnation) == (event.run, writer), "3: it lost its turn"
                if isinstance(event, e.RunCompleted):
                    for waiting in before.pending:
                        if waiting.version <= run.up_to:
                            self.answered[stream, waiting.version] += 1
                            assert self.answered[stream, waiting.version] == 1, "answered twice"
            case e.TokensIncremented() | e.UsageUnknown():
                self.accounted[event.run] += 1
                assert self.accounted[event.run] == 1, "4: billed twice"
            case e.DeliveryStarted():
                assert delivery is not None
                assert delivery.in_flight is None, "5: it may be on its way already"
                assert delivery.incarnation in {"", writer}, "5: another holds it"

"""The protocol of docs/turn.md: nodes claim, beat, pause, die and come back at any moment.

Hypothesis looks for an order of steps after which one of its invariants does not hold. Decisions,
repository, turns, deliveries and stores are the real ones; time is the test's.
"""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import ClassVar

import pytest
from hypothesis import Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    rule,
    run_state_machine_as_test,
)

from app.aggregates import events as e
from app.aggregates.user import User
from app.conversation.kinds import USER_CODEC
from app.conversation.refs import message_ref
from eventstore.errors import EventStoreError
from eventstore.keyring import Handle, KeyEncryptionKey, Keyring
from eventstore.sealing import Sealed, Sealer
from eventstore.types import Append, StreamName, new_append_id
from tests.conformance.appends import whole
from tests.conformance.conftest import FACTORIES
from tests.conformance.protocol import SECOND, Judge, Node, Outcome, Outside
from tests.conformance.stores import FakeClock

EXAMPLES = 20
PHASES = (Phase.explicit, Phase.generate)
"""A story is not shortened: ids are random, and it takes minutes."""

NAMES = ("a", "b", "c")
PEOPLE = 2
OFF = {"a": 0, "b": 800_000, "c": -800_000}
"""How wrong each node's idea of the store's time is (µs)."""

nodes = st.sampled_from(NAMES)
people = st.integers(0, PEOPLE - 1)
outcomes = st.sampled_from(["ok"] * 7 + ["unknown, done", "unknown, not done", "no"])


class ProtocolMachine(RuleBasedStateMachine):
    """Three nodes, two people, one clock."""

    factory_name: ClassVar[str]
    ended_well: ClassVar[int] = 0
    """How many stories came to their end and were found in order."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp())
        self.factory = FACTORIES[self.factory_name](self.folder)
        self.clock = FakeClock()
        self.loop = asyncio.new_event_loop()
        self.outside = Outside()
        self.keys = Keyring.open(
            self.folder / "keys.db",
            KeyEncryptionKey.from_file(self.folder / "kek"),
            clock=self.clock,
        )
        self.wrote: dict[bytes, str] = {}
        self.starts = 0
        self.messages = 0
        self.live: dict[str, Node] = {}

    @initialize()
    def open(self) -> None:
        self.store = self.factory.open(clock=self.clock)
        self.judge = Judge(self.store, slack=2 * max(OFF.values()))
        self.streams: list[StreamName] = []
        for number in range(PEOPLE):
            (person,) = self.keys.register([(Handle("phone", f"3460000000{number}"),)])
            stream = StreamName(f"user/{person}")
            chat = Sealer(self.keys).seal(person, stream, "chat", "chat")
            self.streams.append(stream)
            self.append(stream, self.arrives(chat))
        for name in NAMES:
            self.start(name)
        self.run(self.everybody_beats())

    def teardown(self) -> None:
        try:
            if self.live:
                self.all_ends_well()
        finally:
            for node in self.live.values():
                self.run(node.die())
            self.loop.close()
            self.keys.close()
            self.factory.close()
            shutil.rmtree(self.folder)

    # -- the world ---------------------------------------------------------------------------------

    def run(self, work: Coroutine[object, object, object]) -> None:
        """Let something happen, and everything that follows from it without another step."""

        async def spin() -> None:
            await work
            for _ in range(30):
                await asyncio.sleep(0)

        self.loop.run_until_complete(spin())

    async def everybody_beats(self, but: str = "") -> None:
        for node in self.live.values():
            if node.name != but:
                await node.nodes.beat()

    def start(self, name: str) -> None:
        self.starts += 1
        store = self.factory.open(clock=self.clock)
        self.live[name] = Node(
            name, self.starts, store=store, off=OFF[name], keys=self.keys, outside=self.outside
        )

    def arrives(self, chat: Sealed[str]) -> Callable[[User], object]:
        return lambda user: user.register("whapi", chat, now=self.clock.now)

    def append(self, stream: StreamName, command: Callable[[User], object]) -> None:
        """What the door records."""
        state = self.judge.states.get(stream)
        version = self.store.stream_version(stream)
        user = User(stream) if state is None else User(stream, state, version)
        command(user)
        events = tuple(USER_CODEC.encode(event, key) for event, key in user.collect_events())
        epoch = self.store.head().epoch
        (answer,) = self.store.append_batch(
            [Append(stream, version, events, epoch, new_append_id())]
        )
        assert not isinstance(answer, EventStoreError)

    # -- rules -------------------------------------------------------------------------------------

    @rule(person=people)
    def a_message_comes(self, person: int) -> None:
        self.messages += 1
        stream = self.streams[person]
        owner = stream.partition("/")[2]
        content = e.Content(message_id=f"m{self.messages}", chat_id="chat", text="hola")
        sealed = Sealer(self.keys).seal(owner, stream, "content", content)
        ref = message_ref(self.keys.fingerprint, "whapi", "channel", f"in{self.messages}")
        self.append(stream, lambda u: u.receive_message(ref, "text", sealed, now=self.clock.now))

    @rule(person=people, times=st.integers(0, 9))
    def a_turn_falls_due(self, person: int, times: int) -> None:
        self.a_message_comes(person)
        self.clock.move(6 * SECOND)
        self.all_beat()
        self.others_go_on("", times)

    @rule(
        name=nodes,
        seconds=st.sampled_from([11, 26]),
        times=st.sampled_from([0, 1, 1, 2, 2, 3, 6]),
        late=st.integers(0, 5),
    )
    def a_process_is_stopped(self, name: str, seconds: int, times: int, late: int) -> None:
        """The others live on, find out, and take over what it held, or begin to; then it goes on.

        It is one that was in the middle of something, if there is one.
        """
        name = next((node.name for node in self.live.values() if node.steps), name)
        self.others_live_on(name, seconds)
        self.others_go_on(name, times)
        for _ in range(late):
            self.step(self.live[name], "ok")

    def others_live_on(self, name: str, seconds: int) -> None:
        for _ in range(4):
            self.clock.move(seconds * SECOND // 4)
            self.run(self.everybody_beats(but=name))

    def others_go_on(self, name: str, times: int) -> None:
        others = [node for node in self.live.values() if node.name != name]
        for node in others:
            for stream in self.streams:
                self.run(node.users.refresh(stream))
                self.run(node.visit(stream))
        for node in others * times:
            self.step(node, "ok")

    @rule(seconds=st.sampled_from([0.1, 1, 3, 6, 11, 26]))
    def time_goes_by(self, seconds: float) -> None:
        self.clock.move(round(seconds * SECOND))

    @rule(name=nodes)
    def beat(self, name: str) -> None:
        self.run(self.live[name].nodes.beat())

    @rule()
    def all_beat(self) -> None:
        self.run(self.everybody_beats())

    @rule(name=nodes, person=people)
    def hear(self, name: str, person: int) -> None:
        self.run(self.live[name].users.refresh(self.streams[person]))

    @rule(name=nodes, person=people, hears=st.booleans())
    def visit(self, name: str, person: int, hears: bool) -> None:
        if hears:
            self.run(self.live[name].users.refresh(self.streams[person]))
        self.run(self.live[name].visit(self.streams[person]))

    @rule(name=nodes, outcome=outcomes, times=st.integers(1, 6))
    def go_on(self, name: str, outcome: Outcome, times: int) -> None:
        for n in range(times):
            self.step(self.live[name], outcome if n == times - 1 else "ok")

    @rule(name=nodes)
    def die_and_start_again(self, name: str) -> None:
        self.run(self.live[name].die())
        self.start(name)
        self.run(self.live[name].nodes.beat())

    def step(self, node: Node, outcome: Outcome) -> None:
        async def go() -> None:
            node.steps.pop(0).go(outcome)

        if node.steps:
            self.run(go())
            self.wrote.update(dict.fromkeys(node.wrote, node.incarnation))
            self.look()

    @invariant()
    def the_protocol_is_kept(self) -> None:
        if self.live:
            self.look()

    def look(self) -> None:
        assert not [error for node in self.live.values() for error in node.failures()]
        self.judge.look(self.wrote, self.outside)

    # -- in the end --------------------------------------------------------------------------------

    def all_ends_well(self) -> None:
        """Whatever happened: nodes that are let on answer everything, and account for every run."""
        for _ in range(60):
            for _ in range(12):
                for node in list(self.live.values()):
                    self.step(node, "ok")
            self.clock.move(3 * SECOND)
            self.run(self.everybody_beats())
            for node in list(self.live.values()):
                for stream in self.streams:
                    self.run(node.users.refresh(stream))
                    self.run(node.visit(stream))
        states = self.judge.states.values()
        assert not [s for s in states if s.pending or s.run or s.delivery], "something stays open"
        asked = set(self.outside.billed.values())
        assert asked <= set(self.judge.accounted), "4: a run was billed and nobody knows"
        type(self).ended_well += 1

    # -- for stories that are told, not found ------------------------------------------------------

    def stopped_at(self, what: str) -> Node:
        """Let a turn fall due, and its node go on until its next step is `what`; then stop it."""
        self.a_turn_falls_due(0, 0)
        (node,) = [node for node in self.live.values() if node.steps]
        while node.steps[0].what != what:
            self.step(node, "ok")
        self.others_live_on(node.name, 26)
        return node

    def successor_at(self, what: str, but: Node) -> Node:
        """Let another node take over and go on until its next step is `what`."""
        self.others_go_on(but.name, 0)
        (node,) = [node for node in self.live.values() if node.steps and node is not but]
        while node.steps[0].what != what:
            self.step(node, "ok")
        return node


@pytest.fixture(params=sorted(FACTORIES))
def story(request: pytest.FixtureRequest) -> Iterator[ProtocolMachine]:
    class Machine(ProtocolMachine):
        factory_name = request.param

    machine = Machine()
    machine.open()
    yield machine
    machine.teardown()


@pytest.mark.parametrize("moment", ["thread", "ask", "answer"])
def test_a_process_that_was_stopped_records_nothing_of_what_was_taken_over(
    story: ProtocolMachine, moment: str
) -> None:
    stopped = story.stopped_at(moment)
    successor = story.successor_at("append", stopped)
    story.step(successor, "ok")  # it has taken over, and no more
    for _ in range(5):
        story.step(stopped, "ok")  # the judge would see what it records
    assert not stopped.steps
    assert {row.append_id for row in whole(story.store)[-1:]} == successor.wrote


def test_a_process_that_was_stopped_before_its_send_does_not_send(story: ProtocolMachine) -> None:
    stopped = story.stopped_at("send")
    successor = story.successor_at("send", stopped)
    story.step(stopped, "ok")
    assert story.outside.sent == []
    for _ in range(5):
        story.step(stopped, "ok")
    (state,) = [state for state in story.judge.states.values() if state.delivery]
    assert state.delivery is not None
    assert state.delivery.in_flight is not None, "its failure is not that of the start in flight"
    story.step(successor, "ok")
    assert len(story.outside.sent) == 1


def test_a_node_that_is_not_heard_starts_no_part_even_if_nobody_has_noticed(
    story: ProtocolMachine,
) -> None:
    story.a_turn_falls_due(0, 0)
    (node,) = [node for node in story.live.values() if node.steps]
    while node.steps[0].what != "answer":
        story.step(node, "ok")
    story.clock.move(10 * SECOND)
    for _ in range(5):
        story.step(node, "ok")
    assert story.outside.sent == []
    story.run(node.nodes.beat())
    story.run(node.visit(story.streams[0]))
    for _ in range(2):
        story.step(node, "ok")
    assert len(story.outside.sent) == 1


@pytest.mark.parametrize("name", sorted(FACTORIES))
def test_the_protocol_is_kept_whatever_happens(name: str) -> None:
    class Machine(ProtocolMachine):
        factory_name = name

    run_state_machine_as_test(
        Machine, settings=settings(max_examples=EXAMPLES, stateful_step_count=25, phases=PHASES)
    )
    assert Machine.ended_well >= EXAMPLES

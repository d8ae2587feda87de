"""The log against a model of ten lines: writers, duplicates, conflicts, restores, kills, readers.

Hypothesis looks for a sequence of steps after which the log and the model differ.
"""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar, Literal

import msgspec
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    rule,
    run_state_machine_as_test,
)

from eventstore.errors import (
    Conflict,
    CursorMismatch,
    DuplicateKey,
    EpochMismatch,
    EventStoreError,
    LogUnavailable,
)
from eventstore.store import LogStore
from eventstore.subscription import Subscription
from eventstore.types import Append, Appended, Cursor, Position, Recorded
from eventstore.writer import Writer
from tests.conformance.appends import append, check, event, whole
from tests.conformance.conftest import FACTORIES
from tests.conformance.stores import FakeClock, Killed

STREAMS = ("user/a", "user/b", "jobs/c")
KEYS = ("k1", "k2", "k3", "k4", "k5", "k6")
Row = tuple[str, int, str, bytes | None, bytes, bytes]


class Model:
    """What a log is: a list that grows, and three reasons to refuse."""

    def __init__(self) -> None:
        self.rows: list[Row] = []
        self.epoch = 1

    def version(self, stream: str) -> int:
        return sum(row[0] == stream for row in self.rows)

    def append(self, wanted: Append) -> type[Appended | EventStoreError]:
        version, taken = self.version(wanted.stream), {row[3] for row in self.rows} - {None}
        if wanted.epoch != self.epoch:
            return EpochMismatch
        if wanted.expected != version:
            return Conflict
        if taken & {*wanted.absent, *(e.key for e in wanted.events)}:
            return DuplicateKey
        for n, e in enumerate(wanted.events, version + 1):
            self.rows.append((wanted.stream, n, e.type, e.key, wanted.append_id, e.state))
        return Appended


class Wish(msgspec.Struct, frozen=True):
    """An append to be: how far off its version and epoch are, and which keys it names."""

    stream: str
    keys: tuple[str | None, ...]
    absent: tuple[str, ...]
    version_off: int
    epoch_off: int


def mostly(usual: int, *others: int) -> st.SearchStrategy[int]:
    return st.sampled_from([usual] * 5 + list(others))


wishes = st.lists(
    st.builds(
        Wish,
        stream=st.sampled_from(STREAMS),
        keys=st.lists(st.none() | st.sampled_from(KEYS), min_size=1, max_size=3)
        .filter(lambda keys: len({k for k in keys if k}) == sum(k is not None for k in keys))
        .map(tuple),
        absent=st.lists(st.sampled_from(KEYS), max_size=1).map(tuple),
        version_off=mostly(0, 1, -1),
        epoch_off=mostly(0, 0, 0, 0, 0, 1, -1),
    ),
    min_size=1,
    max_size=5,
)
stores = st.sampled_from([0, 1])


class LogMachine(RuleBasedStateMachine):
    """Two stores over one log, each with a clock of its own, and a reader before each."""

    factory_name: ClassVar[str]
    judged: ClassVar[int] = 0
    """How often a log was compared with the model, in all examples."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp())
        self.factory = FACTORIES[self.factory_name](self.folder)
        self.model = Model()
        self.clocks = [FakeClock(), FakeClock()]
        self.serial = 0

    @initialize()
    def open(self) -> None:
        self.logs: list[LogStore] = [self.factory.open(clock=clock) for clock in self.clocks]
        self.readers = [Subscription(log, page=3) for log in self.logs]
        self.read: list[list[Recorded]] = [[], []]
        self.cursor: Cursor = self.logs[0].cursor_at(Position(0))

    def teardown(self) -> None:
        self.factory.close()
        shutil.rmtree(self.folder)

    def wanted(
        self, wishes: Sequence[Wish]
    ) -> tuple[list[Append], list[type[Appended | EventStoreError]]]:
        """The appends that are wished for, and what the model answers to each."""
        appends, answers = [], []
        for wish in wishes:
            events = []
            for keyed in wish.keys:
                self.serial += 1
                events.append(event(str(self.serial), keyed=keyed))
            one = append(
                wish.stream,
                max(0, self.model.version(wish.stream) + wish.version_off),
                *events,
                epoch=self.model.epoch + wish.epoch_off,
                absent=wish.absent,
            )
            appends.append(one)
            answers.append(self.model.append(one))
        return appends, answers

    # -- writers

    @rule(i=stores, wishes=wishes)
    def write(self, i: int, wishes: list[Wish]) -> None:
        appends, answers = self.wanted(wishes)
        assert [type(a) for a in self.logs[i].append_batch(appends)] == answers

    @rule(i=stores, wishes=wishes)
    def write_together(self, i: int, wishes: list[Wish]) -> None:
        appends, answers = self.wanted(wishes)
        writer = Writer(self.logs[i])

        async def ask() -> list[Appended | BaseException]:
            asked = (writer.append(one) for one in appends)
            return await asyncio.gather(*asked, return_exceptions=True)

        heard = asyncio.run(ask())
        writer.close()
        assert [type(a) for a in heard] == answers

    @rule(i=stores, wishes=wishes, how=st.sampled_from(["before", "after"]))
    def lose_a_commit(self, i: int, wishes: list[Wish], how: Literal["before", "after"]) -> None:
        length = len(self.model.rows)
        appends, answers = self.wanted(wishes)
        self.factory.break_commit(self.logs[i], how, self.factory.commit_error())
        heard = [type(a) for a in self.logs[i].append_batch(appends)]
        if how == "before":
            del self.model.rows[length:]
            answers = [LogUnavailable] * len(answers)
        for got, due in zip(heard, answers, strict=True):
            assert got == due or (got is LogUnavailable and due is not Appended)
        self.restart(i)

    @rule(i=stores, wishes=wishes, how=st.sampled_from(["before", "after"]))
    def be_killed(self, i: int, wishes: list[Wish], how: Literal["before", "after"]) -> None:
        length = len(self.model.rows)
        appends, _ = self.wanted(wishes)
        self.factory.break_commit(self.logs[i], how, Killed())
        with pytest.raises(Killed):
            self.logs[i].append_batch(appends)
        if how == "before":
            del self.model.rows[length:]
        self.restart(i)

    @rule(i=stores)
    def restart(self, i: int) -> None:
        self.logs[i] = self.factory.reopen(self.logs[i], clock=self.clocks[i])
        self.readers[i] = Subscription(
            self.logs[i],
            after=self.logs[i].cursor_at(self.readers[i].position),
            page=3,
        )

    @rule()
    def restore(self) -> None:
        self.factory.start_epoch()
        self.model.epoch += 1
        for i, log in enumerate(self.logs):
            with pytest.raises(CursorMismatch):
                self.readers[i].poll()
            self.readers[i] = Subscription(log, page=3)
            self.read[i] = []
        with pytest.raises(CursorMismatch):
            self.logs[0].verify_cursor(self.cursor)
        self.cursor = self.logs[0].cursor_at(Position(0))

    @rule(i=stores, micros=st.integers(-1000, 1000))
    def turn_the_clock(self, i: int, micros: int) -> None:
        self.clocks[i].move(micros)

    # -- readers

    @rule(i=stores)
    def follow(self, i: int) -> None:
        while batch := self.readers[i].poll():
            self.read[i] += batch.events
        assert self.read[i] == whole(self.logs[i])

    @rule(i=stores, share=st.floats(0, 1))
    def keep_a_cursor(self, i: int, share: float) -> None:
        self.logs[i].verify_cursor(self.cursor)
        self.cursor = self.logs[i].cursor_at(Position(int(len(self.model.rows) * share)))

    @invariant()
    def the_log_is_the_model(self) -> None:
        for log in getattr(self, "logs", ()):
            events = whole(log)
            check(events)
            rows = [(e.stream, e.version, e.type, e.key, e.append_id, e.state) for e in events]
            assert rows == self.model.rows
            assert (log.head().epoch, log.head().position) == (self.model.epoch, len(rows))
            assert {s.name: s.version for s in log.streams()} == {
                row[0]: self.model.version(row[0]) for row in rows
            }
            type(self).judged += 1


@pytest.mark.parametrize(("name", "examples"), [("postgres", 20), ("sqlite", 150)])
def test_whatever_happens_the_log_is_what_the_model_says(name: str, examples: int) -> None:
    class Machine(LogMachine):
        factory_name = name

    run_state_machine_as_test(
        Machine, settings=settings(max_examples=examples, stateful_step_count=30)
    )
    assert Machine.judged > examples

"""Callers that append without pause, readers that follow, and a judge of what they were told.

The promise, whatever fails: what was acknowledged is there, once; what was refused is not there,
and never will be; what is unknown is there whole or not at all; readers see every position once.
"""

from __future__ import annotations

import random
import threading
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Self, TypeVar

from eventstore.errors import Conflict, LogUnavailable, OutcomeUnknown
from eventstore.store import LogReader, LogStore
from eventstore.subscription import Subscription
from eventstore.types import Append, Appended, StreamName, Version
from eventstore.writer import Writer
from tests.conformance.appends import append, check, event, whole
from tests.postgres_home import PATIENCE

T = TypeVar("T")
_BREATH = 0.005
"""Seconds that a caller who was refused waits before it tries again."""


class Traffic:
    """A writer with `callers` callers, each with a stream of its own. A context manager."""

    def __init__(
        self, log: LogStore, *, callers: int = 6, readers: Sequence[LogReader] = ()
    ) -> None:
        self.acknowledged: list[tuple[Append, Appended]] = []
        self.refused: list[Append] = []
        self.unknown: list[Append] = []
        self.wrong: list[str] = []
        self.writer = Writer(log)
        self.readers = [_Reader(reader) for reader in readers]
        self._log = log
        self._news = threading.Condition()
        self._ending = threading.Event()
        self._threads = [
            threading.Thread(target=self._call, args=[f"user/{number}"], daemon=True)
            for number in range(callers)
        ]

    def __enter__(self) -> Self:
        for thread in (*self._threads, *(reader.thread for reader in self.readers)):
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        """End the callers and the writer. Idempotent."""
        self._ending.set()
        for thread in self._threads:
            thread.join(PATIENCE)
            assert not thread.is_alive(), "a caller never got an answer"
        self.writer.close()
        for reader in self.readers:
            reader.subscription.stop()

    def flow(self, count: int = 30) -> None:
        """Return when so many more appends were acknowledged."""
        self._until(lambda: len(self.acknowledged), count, "nothing is acknowledged any more")

    def suffer(self, count: int = 5) -> None:
        """Return when so many more appends were refused, or their outcome is unknown."""
        told = "nobody is told that the log is unavailable"
        self._until(lambda: len(self.refused) + len(self.unknown), count, told)

    def check_against(self, log: LogReader) -> None:
        """Compare what the callers and readers were told with what the log holds. Stops first."""
        self.stop()
        events = whole(log)
        check(events)
        found = Counter(e.append_id for e in events)
        assert not self.wrong
        for wanted, answer in self.acknowledged:
            stored = events[answer.first_position - 1 : answer.last_position]
            assert {e.append_id for e in stored} == {wanted.append_id}, wanted
            assert [e.state for e in stored] == [e.state for e in wanted.events]
            assert found[wanted.append_id] == len(wanted.events)
            assert (stored[-1].version, stored[0].recorded_at) == (
                answer.version,
                answer.recorded_at,
            )
        assert not [a for a in self.refused if found[a.append_id]], (
            "refused, and there all the same"
        )
        for wanted in self.unknown:
            assert found[wanted.append_id] in {0, len(wanted.events)}
        told = {a.append_id for a, _ in self.acknowledged} | {a.append_id for a in self.unknown}
        assert set(found) <= told
        for reader in self.readers:
            reader.thread.join(PATIENCE)
            reader.catch_up(len(events))
            assert reader.seen == list(range(1, len(events) + 1))

    def _until(self, count: Callable[[], int], more: int, complaint: str) -> None:
        with self._news:
            wanted = count() + more
            assert self._news.wait_for(lambda: count() >= wanted or self.wrong, PATIENCE), complaint
        assert not self.wrong

    def _call(self, name: str) -> None:
        chance = random.Random(name)
        stream, version = StreamName(name), Version(0)
        sure = True
        while not self._ending.is_set():
            size = chance.choice((1, 1, 2, 5))
            wanted = append(stream, version, *(event(f"{name}@{version + i}") for i in range(size)))
            try:
                answer = self.writer.append_blocking(wanted)
            except Conflict as conflict:
                if sure:
                    self.wrong.append(f"refused before, and appended all the same: {conflict}")
                    return
                version, sure = self._version(stream), True
            except OutcomeUnknown:
                sure = False
                self._note(self.unknown, wanted)
            except LogUnavailable:
                self._note(self.refused, wanted)
            else:
                version, sure = answer.version, True
                self._note(self.acknowledged, (wanted, answer))
                continue
            self._ending.wait(_BREATH)

    def _version(self, stream: StreamName) -> Version:
        while True:
            try:
                return self._log.stream_version(stream)
            except LogUnavailable:
                self._ending.wait(_BREATH)

    def _note(self, where: list[T], what: T) -> None:
        with self._news:
            where.append(what)
            self._news.notify_all()


class _Reader:
    """Follows the log through everything, and remembers each position."""

    def __init__(self, log: LogReader) -> None:
        self.seen: list[int] = []
        self.subscription = Subscription(log, page=50)
        self.thread = threading.Thread(target=self._follow, daemon=True)

    def _follow(self) -> None:
        while True:
            try:
                for batch in self.subscription:
                    self.seen += [e.position for e in batch.events]
            except LogUnavailable:
                threading.Event().wait(_BREATH)
            else:
                return

    def catch_up(self, last: int) -> None:
        while self.subscription.position < last:
            batch = self.subscription.poll()
            assert batch is not None
            self.seen += [e.position for e in batch.events]

"""What other processes do in these tests, and how they are started, heard and killed.

They come out of a fork server: a clean process that has imported everything and opened nothing, so
that a start costs milliseconds and no SQLite connection ever crosses a fork.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import random
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any, Self

import msgspec

from eventstore.errors import Conflict
from eventstore.subscription import Subscription
from eventstore.types import Append, Appended, StreamName, Version, new_append_id
from eventstore.writer import Writer
from tests.conformance.appends import FIRST_EPOCH, append, event
from tests.conformance.held import PATIENCE
from tests.conformance.stores import StoreFactory

_processes = multiprocessing.get_context("forkserver")
_processes.set_forkserver_preload(["pytest", "tests.conformance.processes"])


class Child:
    """Another process at work on the same log. It says what it did; the test may kill it."""

    def __init__(self, work: Callable[..., None], *args: object) -> None:
        self._pipe, theirs = _processes.Pipe()
        self._process = _processes.Process(target=work, args=(theirs, *args), daemon=True)
        self._process.start()
        theirs.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()
        self._pipe.close()

    def hear(self) -> Any:  # noqa: ANN401 - whatever the work says
        """The next thing it says. Raises `EOFError` when it is dead and has said all."""
        assert self._pipe.poll(PATIENCE), "the other process says nothing"
        return self._pipe.recv()

    def say(self, what: object) -> None:
        self._pipe.send(what)

    def kill(self) -> None:
        """End it with SIGKILL, wherever it is."""
        self._process.kill()
        self._process.join(PATIENCE)

    def last_words(self) -> list[Any]:
        """Everything that it had said and nobody had heard when it died."""
        words = []
        try:
            while True:
                words.append(self.hear())
        except (EOFError, OSError):
            return words


class Acknowledged(msgspec.Struct, frozen=True):
    """An append for which its caller got an answer, with that answer."""

    append: Append
    answer: Appended


def write_many(pipe: Connection, factory: StoreFactory, seed: int, appends: int) -> None:
    """Append to random streams from four tasks, decide again on a conflict, tell each success."""
    asyncio.run(_write_many(pipe, factory, seed, appends))


async def _write_many(pipe: Connection, factory: StoreFactory, seed: int, appends: int) -> None:
    chance = random.Random(seed)
    log = factory.open(server=True)
    writer = Writer(log)
    pipe.send("ready")
    pipe.recv()

    async def one_caller(count: int) -> None:
        for _ in range(count):
            stream = StreamName(f"user/{chance.randrange(6)}")
            size = chance.choice((1, 1, 2, 5, 5, 300))  # 300: more than one statement
            while True:
                expected = log.stream_version(stream)
                events = (event(f"{i + 1}/{size}" + "." * 100) for i in range(size))
                wanted = append(stream, expected, *events)
                try:
                    answer = await writer.append(wanted)
                except Conflict:
                    continue
                pipe.send(Acknowledged(wanted, answer))
                break

    await asyncio.gather(*(one_caller(appends // 4) for _ in range(4)))
    pipe.send("done")
    writer.close()
    log.close()


def contend(pipe: Connection, factory: StoreFactory, stream: StreamName, versions: int) -> None:
    """Try to write each version of one stream, and tell which ones were won."""
    log = factory.open()
    won: list[int] = []
    pipe.send("ready")
    pipe.recv()
    for version in range(versions):
        wanted = Append(
            stream, Version(version), (event(str(version)),), FIRST_EPOCH, new_append_id()
        )
        answer = log.append_batch([wanted])[0]
        if isinstance(answer, Appended):
            won.append(version)
        elif not isinstance(answer, Conflict):
            raise answer
    pipe.send(won)
    log.close()


def follow(pipe: Connection, factory: StoreFactory, last_stream: str) -> None:
    """Read live until an event of the last stream comes, then tell the positions seen, in order."""
    log = factory.open()
    seen: list[int] = []
    subscription = Subscription(log, page=7)
    pipe.send("ready")
    for batch in subscription:
        seen += [e.position for e in batch.events]
        if any(e.stream == last_stream for e in batch.events):
            subscription.stop()
    pipe.send(seen)
    log.close()


def follow_and_tell(pipe: Connection, factory: StoreFactory) -> None:
    """Read live, and tell each position as soon as it is seen."""
    log = factory.open()
    pipe.send("ready")
    for batch in Subscription(log):
        pipe.send((batch.up_to, time.monotonic()))


def open_at_once(pipe: Connection, factory: StoreFactory, stream: str) -> None:
    """Open a log that nobody made yet, at the same moment as others do."""
    pipe.send("ready")
    pipe.recv()
    log = factory.open()
    answer = log.append_batch([append(stream)])[0]
    pipe.send(answer.last_position if isinstance(answer, Appended) else repr(answer))
    log.close()

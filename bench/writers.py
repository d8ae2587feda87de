"""Processes that append to one log in PostgreSQL at the same time.

`python -m bench.writers` takes a `Start` on its standard input, takes a turn with each of its
people and says how many it took; then, for each line `TURNS CALLERS`, it takes turns and answers
with a `Took`. It ends with its input.
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import IO, Self

import msgspec

from bench.datasets import DataSet
from bench.ours import OurLog
from bench.people import EVENTS_PER_TURN, Person
from bench.postgres import SCHEMA
from bench.servers import ROOT, ServerFailed, inherited
from eventstore.postgres import PostgresLog


class Start(msgspec.Struct, frozen=True):
    """What a process is told: where log and keys are, who takes turns, and the seed of those."""

    url: str
    keys: str
    people: list[Person]
    seed: int


class Took(msgspec.Struct, frozen=True):
    """How many turns a process took, and from when to when by the system's monotonic clock."""

    turns: int
    began: float
    ended: float


class Writers:
    """Some processes, each with people of its own. A context manager."""

    def __init__(
        self, url: str, data: DataSet, groups: Sequence[list[Person]], *, seed: int
    ) -> None:
        """Start a process for each group of a data set's people.

        Their seeds are `seed` and those that follow. Raises `ServerFailed`.
        """
        self.turns = 0
        """Taken so far by all of them, those of warming up included."""
        self._processes: list[subprocess.Popen[bytes]] = []
        with ExitStack() as stack:
            stack.callback(self.close)
            for number, people in enumerate(groups):
                start = Start(url, str(data.directory), people, seed + number)
                self._processes.append(_started(start))
            for process in self._processes:
                self.turns += _answer(process).turns
            stack.pop_all()

    def take_turns(self, turns: int, *, callers: int) -> float:
        """Take so many turns, shared out, with so many callers in each; return events a second."""
        share = max(1, turns // len(self._processes))
        for process in self._processes:
            _tell(process, f"{share} {callers}".encode())
        answers = [_answer(process) for process in self._processes]
        taken = sum(answer.turns for answer in answers)
        self.turns += taken
        spent = max(a.ended for a in answers) - min(a.began for a in answers)
        return taken * EVENTS_PER_TURN / spent

    def close(self) -> None:
        """End all of them."""
        for process in self._processes:
            assert process.stdin is not None
            process.stdin.close()
        for process in self._processes:
            process.wait()
            assert process.stdout is not None
            process.stdout.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _started(start: Start) -> subprocess.Popen[bytes]:
    process = subprocess.Popen(
        [sys.executable, "-m", "bench.writers"],
        cwd=ROOT,
        env=inherited(),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    _tell(process, msgspec.json.encode(start))
    return process


def _tell(process: subprocess.Popen[bytes], line: bytes) -> None:
    assert process.stdin is not None
    process.stdin.write(line + b"\n")
    process.stdin.flush()


def _answer(process: subprocess.Popen[bytes]) -> Took:
    assert process.stdout is not None
    line = process.stdout.readline()
    if not line:
        msg = "a process that appends has ended"
        raise ServerFailed(msg)
    return msgspec.json.decode(line, type=Took)


def main(told: IO[bytes], answers: IO[bytes]) -> None:
    """Take turns as it is told, until nothing more is told."""
    start = msgspec.json.decode(told.readline(), type=Start)
    log = PostgresLog(start.url, schema=SCHEMA)
    data = DataSet("", Path(start.keys), start.people, 0)
    with OurLog(data, log=log, seed=start.seed) as ours:

        def answer(since: int, began: float) -> None:
            took = Took(ours.turns - since, began, time.monotonic())
            answers.write(msgspec.json.encode(took) + b"\n")
            answers.flush()

        began = time.monotonic()
        ours.warm_up()
        answer(0, began)
        for line in told:
            turns, callers = map(int, line.split())
            since, began = ours.turns, time.monotonic()
            ours.take_turns(turns, callers=callers)
            answer(since, began)


if __name__ == "__main__":
    main(sys.stdin.buffer, sys.stdout.buffer)

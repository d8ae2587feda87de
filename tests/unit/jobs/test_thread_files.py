"""When the thread files are written, and what becomes of a writing that fails."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import pytest
from structlog.testing import capture_logs

from app.children import ChildFailed
from app.jobs.thread_files import BACKUP_SECONDS, PAUSE_SECONDS, Mark, ThreadFiles
from app.thread_files import Written
from eventstore.errors import LogUnavailable
from eventstore.types import Micros

LEAST = 60.0


class Node:
    """A node whose clock, log and disk are what the test says."""

    def __init__(self, readers: ThreadPoolExecutor) -> None:
        self.now = 1_000.0
        self.mark: Mark | None = Mark(position=1, destructions=0, live=True)
        self.takes = 0.0
        self.fails: Exception | None = None
        self.hang: asyncio.Event | None = None
        self.begun = asyncio.Event()
        self.writings: list[str] = []
        self.files = ThreadFiles(
            self._look,
            self._write,
            readers=readers,
            now=lambda: Micros(int(self.now * 1_000_000)),
            least_seconds=LEAST,
        )

    def _look(self) -> Mark | None:
        if isinstance(self.fails, LogUnavailable):
            raise self.fails
        return self.mark

    async def _write(self, also: Sequence[str]) -> Written:
        self.begun.set()
        if self.hang is not None:
            await self.hang.wait()
        self.now += self.takes
        if self.fails is not None:
            raise self.fails
        self.writings.append(" ".join(("written", *also)))
        return Written(people=3, unopened=0, backup="--backup" in also, kept=())

    async def after(self, seconds: float, mark: Mark | None = None) -> list[str]:
        """Let time pass, look, and return what was written then."""
        self.now += seconds
        self.mark = mark or self.mark
        before = len(self.writings)
        await self.files.look()
        return self.writings[before:]


def moved(position: int, *, destructions: int = 0, live: bool = True) -> Mark:
    return Mark(position, destructions, live)


@pytest.fixture
async def node() -> AsyncIterator[Node]:
    with ThreadPoolExecutor(1) as readers:
        yield Node(readers)


async def test_both_are_written_at_the_start_and_again_when_something_has_changed(
    node: Node,
) -> None:
    assert await node.after(0) == ["written --backup"]
    assert await node.after(LEAST) == []
    assert await node.after(0, moved(2)) == ["written"]
    assert await node.after(LEAST - 1, moved(3)) == []
    assert await node.after(1) == ["written"]


async def test_the_backup_is_fresh_every_quarter_of_an_hour_though_nothing_changes(
    node: Node,
) -> None:
    await node.after(0)
    assert await node.after(BACKUP_SECONDS - 1) == []
    assert await node.after(1) == ["written --backup"]
    assert await node.after(BACKUP_SECONDS, moved(1, live=False)) == []  # or it would look fresh


async def test_whoever_is_forgotten_is_taken_out_at_once(node: Node) -> None:
    await node.after(0)
    assert await node.after(0.1, moved(1, destructions=1, live=False)) == ["written"]
    assert await node.after(0.1) == []


async def test_nothing_is_written_before_the_read_models_are_built(node: Node) -> None:
    node.mark = None
    assert await node.after(0) == []
    assert await node.after(0.1, moved(1)) == ["written --backup"]


async def test_a_large_map_is_written_less_often(node: Node) -> None:
    node.takes = 11.0
    await node.after(0)
    assert await node.after(199, moved(2)) == []
    assert await node.after(1) == ["written"]


@pytest.mark.parametrize("error", [ChildFailed(1, "disk full"), LogUnavailable("gone")])
async def test_a_failure_is_logged_and_counted_and_tried_again(
    node: Node, error: Exception
) -> None:
    node.fails = error
    with capture_logs() as lines:
        assert await node.after(0) == []
        assert await node.after(PAUSE_SECONDS - 1) == []
    (line,) = lines
    assert (line["event"], line["log_level"]) == ("THREAD_FILES_FAILED", "error")
    assert str(error) in line["error"]
    shown = node.files.numbers()
    assert (shown["thread_files_failures"], shown["thread_files_failing"]) == (1, 1)
    assert shown["thread_files_age_seconds"] == PAUSE_SECONDS - 1
    node.fails = None
    assert await node.after(1) == ["written --backup"]
    shown = node.files.numbers()
    assert (shown["thread_files_failing"], shown["thread_files_age_seconds"]) == (0, 0)
    assert shown["thread_files_people"] == 3


async def test_a_writing_in_hand_ends_with_the_bot(node: Node) -> None:
    node.hang = asyncio.Event()
    looking = asyncio.ensure_future(node.files.look())
    await node.begun.wait()
    await node.files.close()
    with pytest.raises(asyncio.CancelledError):
        await looking
    assert node.writings == []

"""The read models over a log in PostgreSQL: the same rows as over SQLite."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from app.projections import MODELS, Follower, Views, content, past, rebuild
from app.projections.engine import Engine
from app.projections.timeline import timeline
from eventstore.postgres import PostgresLog
from eventstore.store import LogStore
from eventstore.types import StreamName
from tests.unit.projections.accounts import naive
from tests.unit.projections.histories import TestLog
from tests.unit.projections.lives import COMMANDS, TURN, World

ENOUGH = 30.0


class PostgresTestLog(TestLog):
    """A log in a schema of a database."""

    def __init__(self, url: str) -> None:
        self.url = url
        super().__init__(Path())

    def open(self) -> LogStore:
        return PostgresLog(self.url, schema="bot_test", server=True)


@pytest.fixture
def there(postgres_url: str) -> Iterator[PostgresTestLog]:
    history = PostgresTestLog(postgres_url)
    yield history
    history.close()


def play(history: TestLog, steps: int) -> None:
    """Let users decide at chance, and take some whole turns."""
    rng = random.Random(11)
    count = len(COMMANDS)
    script = [(rng.choice("abc"), rng.randrange(count), rng.randrange(900)) for _ in range(steps)]
    World(history).play([*script, *(("d", command, 8) for command in TURN)])


def test_rebuilt_followed_and_as_of_they_say_what_the_log_says(
    there: PostgresTestLog, tmp_path: Path
) -> None:
    play(there, 150)
    before = there.log.head().position
    views = Views(tmp_path / "views.db")
    assert all(outcome.switched for outcome in rebuild(views, there.log, MODELS, window=40))
    assert content(views) == naive(there.log)
    follower = Follower(there.log, views, MODELS, worker=False)
    follower.start()
    try:
        assert follower.progress.wait_for(there.chat("xy", turns=2), ENOUGH)
    finally:
        follower.stop()
    assert content(views) == naive(there.log)
    then = past.build_at(tmp_path / "then.db", there.log, MODELS, before)
    assert content(then) == naive(there.log, before)
    assert timeline(there.log, StreamName("user/a"))
    then.close()
    views.close()


def test_they_are_not_moved_twice_by_engines_that_meet(
    there: PostgresTestLog, tmp_path: Path
) -> None:
    play(there, 60)
    views, others = Views(tmp_path / "views.db"), Views(tmp_path / "views.db")
    views.begin(MODELS, there.log.head().epoch)
    engines = [Engine(v, there.log, MODELS, window=7) for v in (views, others)]
    while sum(engine.advance() for engine in engines):  # all of them, each time
        pass
    assert content(views) == naive(there.log)
    others.close()
    views.close()

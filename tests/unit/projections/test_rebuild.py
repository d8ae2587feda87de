"""Rebuilding beside the live rows: no reader can tell, and nothing that is killed matters."""

from __future__ import annotations

import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from msgspec.structs import replace
from sqlite_utils import Database
from sqlite_utils.migrations import Migrations

from app.lock import exclusive
from app.projections import (
    MODELS,
    THREAD_MAP,
    RebuildRunning,
    Views,
    content,
    content_hash,
    rebuild,
    thread_map,
)
from app.projections.engine import Engine
from app.projections.errors import RebuildFailed
from app.projections.rebuild import beside
from app.projections.thread_map import ThreadMap
from eventstore.types import NewEvent, Position
from tests.unit.projections.accounts import naive
from tests.unit.projections.histories import HISTORIES, History, TestLog, received
from tests.unit.projections.test_engine import BROKEN, Killed, Reaper, build, follow


class NextThreadMap(ThreadMap):
    """The next release's."""

    version = THREAD_MAP.version + 1


NEXT = (NextThreadMap(), *MODELS[1:])
_indexed = Migrations("thread_map")
_indexed()(thread_map.table)


@_indexed()
def by_thread(db: Database) -> None:
    db.table("thread_map").create_index(["thread"])


class IndexedThreadMap(ThreadMap):
    """That of a release which added an index: the rows are the same, and so is the version."""

    migrations = _indexed


def test_deleting_the_views_and_rebuilding_gives_the_same_content(history: TestLog) -> None:
    history.chat("abcdef", turns=4)
    path = history.path.with_name("views.db")
    views = Views(path)
    build(views, history)
    Engine(views, history.log, MODELS, window=3).advance()
    follow(views, history)
    before, digest = content(views), content_hash(views)
    views.close()
    for file in path.parent.glob("views.db*"):
        file.unlink()
    views = Views(path)
    outcomes = rebuild(views, history.log, MODELS)
    assert [outcome.switched for outcome in outcomes] == [True] * len(MODELS)
    assert (content(views), content_hash(views)) == (before, digest)
    assert before == naive(history.log)
    assert not beside(path).exists()
    views.close()


def test_readers_see_whole_rows_of_ever_later_positions_during_a_rebuild(
    views: Views, history: TestLog
) -> None:
    history.chat("abc", turns=3)
    rebuild(views, history.log, MODELS)
    reached = [views.standings()["thread_map"].cursor.position]
    visitors = list("defg")

    def look(step: str) -> None:
        if step == "committed" and visitors:  # the live ones move on while new ones are built
            history.chat(visitors.pop())
            follow(views, history)
        reached.append(views.standings()["thread_map"].cursor.position)
        assert content(views) == naive(history.log, reached[-1])

    rebuild(views, history.log, MODELS, window=5, at_step=look)
    assert reached == sorted(reached)
    assert len(set(reached)) == 5


def test_events_that_the_live_rows_took_last_are_not_missing_after_the_switch(
    views: Views, history: TestLog
) -> None:
    history.chat("ab")
    rebuild(views, history.log, MODELS)

    def overtake(step: str) -> None:
        if step == "caught up":
            history.chat("c")
            follow(views, history)

    rebuild(views, history.log, MODELS, at_step=overtake)
    assert views.standings()["thread_map"].cursor.position == history.log.head().position
    assert content(views) == naive(history.log)


@given(history=HISTORIES, more=HISTORIES, life=st.integers(1, 90), window=st.integers(1, 30))
@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_rebuild_that_is_killed_anywhere_leaves_the_live_rows_and_can_be_run_again(
    tmp_path_factory: pytest.TempPathFactory,
    history: History,
    more: History,
    life: int,
    window: int,
) -> None:
    log = TestLog(tmp_path_factory.mktemp("killed") / "log.db")
    views = Views(log.path.with_name("views.db"))
    log.write(history)
    build(views, log)
    follow(views, log)
    before = content(views)
    log.write(more)
    switched = False
    reaper = Reaper(life)

    def step(name: str) -> None:
        nonlocal switched
        switched = switched or name == "switched"
        reaper(name)

    try:
        rebuild(views, log.log, MODELS, window=window, at_step=step)
        switched = True
    except Killed:
        pass
    assert content(views) == (naive(log.log) if switched else before)
    rebuild(views, log.log, MODELS, window=window)
    assert content(views) == naive(log.log)
    assert not beside(views.path).exists()
    views.close()
    log.close()


def test_a_killed_rebuild_goes_on_where_it_ended(views: Views, history: TestLog) -> None:
    history.chat("abcdef", turns=5)
    with pytest.raises(Killed):
        rebuild(views, history.log, MODELS, window=30, at_step=Reaper(25))
    read: list[Position] = []
    rebuild(views, history.log, MODELS, progress=read.append)
    assert read[0] > 30
    assert content(views) == naive(history.log)


def test_indexes_that_only_readers_use_are_made_at_the_switch(
    views: Views, history: TestLog, tmp_path: Path
) -> None:
    history.chat("abc", turns=2)
    made = Views(tmp_path / "made.db")
    build(made, history)
    growing: list[dict[str, str]] = []

    def look(step: str) -> None:
        if step == "committed":
            with closing(sqlite3.connect(beside(views.path))) as db:
                growing.append(plain_indexes(db))

    with pytest.raises(Killed):
        rebuild(views, history.log, MODELS, window=5, at_step=Reaper(40))
    rebuild(views, history.log, MODELS, window=5, at_step=look)
    with made.read() as wanted, views.read() as db:
        assert plain_indexes(db) == plain_indexes(wanted) != {}
    assert growing
    assert not any(growing)
    made.close()


def test_what_a_killed_rebuild_left_without_an_index_of_this_release_is_begun_anew(
    views: Views, history: TestLog
) -> None:
    history.chat("abc", turns=2)
    with pytest.raises(Killed):
        rebuild(views, history.log, MODELS, window=5, at_step=Reaper(40))
    rebuild(views, history.log, (IndexedThreadMap(), *MODELS[1:]))
    with views.read() as db:
        assert "idx_thread_map_thread" in plain_indexes(db)
    views.migrate(IndexedThreadMap())  # finds that it was applied
    assert content(views) == naive(history.log)


def plain_indexes(db: sqlite3.Connection) -> dict[str, str]:
    """How the indexes that refuse no rows are made, by name."""
    query = "SELECT name, sql FROM sqlite_master WHERE type = 'index' AND sql LIKE 'CREATE INDEX%'"
    return dict(db.execute(query).fetchall())


def test_a_building_file_that_cannot_be_read_is_made_again(views: Views, history: TestLog) -> None:
    history.chat("ab")
    beside(views.path).write_bytes(b"this is not a database" * 1000)
    rebuild(views, history.log, MODELS)
    assert content(views) == naive(history.log)


def test_another_version_is_built_beside_the_old_one_and_then_takes_its_place(
    views: Views, history: TestLog
) -> None:
    history.chat("abc")
    rebuild(views, history.log, MODELS)
    old = content(views)
    history.chat("d")
    follow(views, history, NEXT)
    assert views.standings()["thread_map"].version == THREAD_MAP.version
    assert content(views)["thread_map"] == old["thread_map"]  # stands still, and can be read
    rebuild(views, history.log, NEXT[:1])
    assert views.standings()["thread_map"].version == NEXT[0].version
    assert content(views) == naive(history.log)


def test_tables_that_another_version_no_longer_has_go_with_it(
    views: Views, history: TestLog
) -> None:
    history.chat("a")
    rebuild(views, history.log, MODELS)
    with views.transaction() as db:
        db.execute("CREATE TABLE thread_map_extra (x)")
        standing = views.standings()["thread_map"]
        views.put(db, replace(standing, tables=("thread_map", "thread_map_extra")))
    rebuild(views, history.log, NEXT)
    with views.read() as db:
        assert not db.execute("SELECT 1 FROM sqlite_master WHERE name LIKE '%extra'").fetchall()


def test_only_the_model_that_is_named_is_rebuilt(views: Views, history: TestLog) -> None:
    history.chat("a")
    rebuild(views, history.log, MODELS)
    other = views.standings()["token_totals"]
    rebuild(views, history.log, [THREAD_MAP])
    assert views.standings()["token_totals"] == other


def test_tables_of_others_in_the_same_file_are_left_alone(views: Views, history: TestLog) -> None:
    with views.transaction() as db:
        db.execute("CREATE TABLE todo (stream TEXT)")
        db.execute("INSERT INTO todo VALUES ('user/a')")
    rebuild(views, history.log, MODELS)
    with views.read() as db:
        assert db.execute("SELECT stream FROM todo").fetchall() == [("user/a",)]


def test_a_poisoned_first_build_shows_what_came_before_and_is_parked(
    views: Views, history: TestLog
) -> None:
    good = history.chat("a")
    history.append_raw("a", BROKEN)
    outcomes = {outcome.model: outcome for outcome in rebuild(views, history.log, MODELS)}
    assert outcomes["thread_map"].parked is None
    assert "cannot be read" in str(outcomes["token_totals"].parked)
    assert views.standings()["token_totals"].state == "parked"
    assert content(views)["token_totals"] == naive(history.log, good)["token_totals"]


def test_a_poisoned_rebuild_leaves_the_old_version_readable(views: Views, history: TestLog) -> None:
    history.chat("a")
    rebuild(views, history.log, MODELS)
    old = content(views)
    history.append_raw("a", NewEvent("ThreadStarted@2", b"\x80"))
    outcomes = rebuild(views, history.log, NEXT[:1])
    assert [(o.switched, bool(o.parked)) for o in outcomes] == [(False, True)]
    standing = views.standings()["thread_map"]
    assert (standing.version, standing.state) == (THREAD_MAP.version, "parked")
    assert content(views) == old


def test_a_log_that_was_put_back_is_rebuilt_from_the_start(
    views: Views, history: TestLog, tmp_path: Path
) -> None:
    history.chat("ab")
    with closing(sqlite3.connect(history.path)) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    copy = tmp_path / "copy" / "log.db"
    copy.parent.mkdir()
    shutil.copy(history.path, copy)
    history.chat("cd")
    rebuild(views, history.log, MODELS)
    put_back = TestLog(copy)
    put_back.chat("efgh")
    Engine(views, put_back.log, MODELS).verify()
    assert {s.state for s in views.standings().values()} == {"building"}
    rebuild(views, put_back.log, MODELS)
    assert content(views) == naive(put_back.log)
    put_back.close()


def test_what_a_killed_rebuild_left_of_another_log_is_not_used(
    views: Views, history: TestLog, tmp_path: Path
) -> None:
    history.chat("abc", turns=3)
    with pytest.raises(Killed):
        rebuild(views, history.log, MODELS, window=10, at_step=Reaper(20))
    other = TestLog(tmp_path / "other.db")
    other.chat("xyz", turns=3)
    rebuild(views, other.log, MODELS)
    assert content(views) == naive(other.log)
    other.close()


def test_a_log_that_is_replaced_again_and_again_ends_the_rebuild_with_a_word(
    views: Views, history: TestLog
) -> None:
    history.append("a", received())
    building = beside(views.path)

    def replaced(step: str) -> None:
        if step == "prepared":
            other = Views(building)
            with other.transaction() as db:
                db.execute("UPDATE cursors SET epoch = 77")
            other.close()

    with pytest.raises(RebuildFailed, match="changed under the rebuild"):
        rebuild(views, history.log, MODELS, at_step=replaced)


def test_one_rebuild_at_a_time(views: Views, history: TestLog) -> None:
    lock = views.path.with_name("views.rebuild.lock")
    with (
        exclusive(lock, "a test"),
        pytest.raises(RebuildRunning, match=r"being rebuilt already, by process \d+"),
    ):
        rebuild(views, history.log, MODELS)


def test_a_damaged_file_is_put_aside_by_its_owner_alone(tmp_path: Path, history: TestLog) -> None:
    history.chat("ab")
    path = tmp_path / "views.db"
    path.write_bytes(b"x" * 8192)
    with pytest.raises(sqlite3.DatabaseError):
        Views(path)
    assert path.read_bytes() == b"x" * 8192
    views = Views.owned(path)
    rebuild(views, history.log, MODELS)
    assert content(views) == naive(history.log)
    views.close()
    (kept,) = tmp_path.glob("views.db.damaged-*")
    assert kept.read_bytes() == b"x" * 8192

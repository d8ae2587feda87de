"""Batches and their cursors: counted once, whatever is killed; parked, whatever is poisoned."""

from __future__ import annotations

import sqlite3
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing
from pathlib import Path
from typing import cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlite_utils import Database
from sqlite_utils.migrations import Migrations

from app.aggregates.events import MessageReceived, TokensIncremented
from app.projections import MODELS, THREAD_MAP, TOKEN_TOTALS, Seen, Session, Views, content
from app.projections.content import Content
from app.projections.engine import Engine, Steps, no_steps
from app.projections.model import ReadModel
from eventstore.errors import CursorMismatch
from eventstore.store import LogReader
from eventstore.types import NewEvent, Position
from tests.unit.projections.accounts import naive
from tests.unit.projections.histories import (
    CODEC,
    HISTORIES,
    TestLog,
    received,
    started,
    tokens,
)
from tests.unit.projections.lives import SCRIPTS, World


class Killed(BaseException):
    """Stands for kill -9: nothing of ours runs after it."""


class Reaper:
    """Kills at the nth step."""

    def __init__(self, lives: int) -> None:
        self.lives = lives

    def __call__(self, step: str) -> None:
        self.lives -= 1
        if self.lives == 0:
            raise Killed(step)


def build(views: Views, history: TestLog, models: Sequence[ReadModel] = MODELS) -> None:
    known = views.standings()
    views.begin([model for model in models if model.name not in known], history.log.head().epoch)


def follow(views: Views, history: TestLog, models: Sequence[ReadModel] = MODELS) -> None:
    engine = Engine(views, history.log, models)
    while engine.advance():
        pass


KILLS = given(
    windows=st.lists(st.integers(1, 40), min_size=1, max_size=8),
    lives=st.lists(st.integers(1, 12), max_size=6),
    data=st.data(),
)


@KILLS
@settings(max_examples=50)
def test_whatever_is_killed_between_any_two_steps_everything_is_counted_exactly_once(
    windows: list[int], lives: list[int], data: st.DataObject
) -> None:
    histories = data.draw(st.lists(HISTORIES, min_size=1, max_size=3))
    with tempfile.TemporaryDirectory() as directory:
        history = TestLog(Path(directory, "log.db"))
        for n, one in enumerate(histories):
            history.write(one)
            for shown in lived_through(history, n, windows, lives):
                assert shown == naive(history.log)
        history.close()


@KILLS
@settings(max_examples=50)
def test_what_users_decided_is_counted_exactly_once_whatever_is_killed(
    windows: list[int], lives: list[int], data: st.DataObject
) -> None:
    scripts = data.draw(st.lists(SCRIPTS, min_size=1, max_size=3))
    with tempfile.TemporaryDirectory() as directory:
        history = TestLog(Path(directory, "log.db"))
        world = World(history)
        for n, script in enumerate(scripts):
            world.play(script)
            for shown in lived_through(history, n, windows, lives):
                assert shown == naive(history.log)
        history.close()


def lived_through(
    history: TestLog, n: int, windows: list[int], lives: list[int]
) -> Iterator[Content]:
    """Follow to the end, dying on the way as often as `lives` says; yield what each end shows."""
    path = history.path.with_name("views.db")
    for life in [*lives, 0]:
        with closing(Views(path)) as views:
            build(views, history)
            window = windows[(n + life) % len(windows)]
            engine = Engine(views, history.log, MODELS, window=window, at_step=Reaper(life))
            try:
                engine.verify()
                while engine.advance():
                    pass
            except Killed:
                continue
            position = history.log.head().position
            assert {s.cursor.position for s in views.standings().values()} == {position}
            yield content(views)


def test_after_every_batch_the_tables_show_exactly_the_events_up_to_the_cursor(
    views: Views, history: TestLog
) -> None:
    history.chat("abc", turns=3)
    build(views, history)
    engine = Engine(views, history.log, MODELS, window=4)
    while engine.advance():
        (position,) = {s.cursor.position for s in views.standings().values()}
        assert content(views) == naive(history.log, position)


def test_more_users_than_memory_should_hold_are_written_in_between(
    views: Views, history: TestLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.projections.people._MAX_ROWS", 1)
    monkeypatch.setattr("app.projections.engine._CHUNK", 4)
    monkeypatch.setattr("app.projections.engine.LIVE_NAMES", 1)
    for _ in range(3):
        history.chat("abc", turns=2)
    build(views, history)
    follow(views, history)
    assert content(views) == naive(history.log)


def test_a_batch_never_ends_inside_an_append(views: Views, history: TestLog) -> None:
    ends = {history.append("a", *[received()] * n) for n in (3, 1, 4, 2)}
    build(views, history)
    engine = Engine(views, history.log, MODELS, window=2)
    while engine.advance():
        assert {s.cursor.position for s in views.standings().values()} <= ends


def test_a_model_that_lags_catches_up_alone_and_then_shares_the_pass(
    views: Views, history: TestLog
) -> None:
    history.chat("ab")
    build(views, history, [THREAD_MAP])
    follow(views, history, [THREAD_MAP])
    history.chat("cd")
    build(views, history)
    engine = Engine(views, history.log, MODELS)
    engine.advance()
    assert len({s.cursor.position for s in views.standings().values()}) == 1
    follow(views, history)
    assert content(views) == naive(history.log)


def test_another_process_that_was_faster_is_not_repeated(views: Views, history: TestLog) -> None:
    history.chat("ab")
    build(views, history)
    other = Views(views.path)

    def overtaken(step: str) -> None:
        if step == "looked":
            follow(other, history)

    engine = Engine(views, history.log, MODELS, at_step=overtaken)
    while engine.advance():
        pass
    other.close()
    assert content(views) == naive(history.log)


# -- what is remembered between batches ------------------------------------------------------------


def follower_of(views: Views, history: TestLog, at_step: Steps = no_steps) -> Engine:
    """An engine that has come to the end of a log, and remembers its users."""
    history.chat("ab", turns=2)
    history.append("a", received())  # nobody has answered it
    build(views, history)
    engine = Engine(views, history.log, MODELS, at_step=at_step)
    while engine.advance():
        pass
    return engine


def test_rows_that_were_just_written_are_not_read_again(views: Views, history: TestLog) -> None:
    engine = follower_of(views, history)
    history.append("a", received())
    history.append("c", received())  # somebody new, of whom nobody knows that there is no row
    asked: list[str] = []
    views._writer.set_trace_callback(asked.append)
    engine.advance()
    looked_up = [statement for statement in asked if "json_each" in statement]
    assert len(looked_up) == 3
    assert not any('"a"' in statement for statement in looked_up)
    assert content(views) == naive(history.log)


@pytest.mark.parametrize("whose", ["another's", "our own"])
def test_what_somebody_else_wrote_is_read_again(views: Views, history: TestLog, whose: str) -> None:
    engine = follower_of(views, history)
    with ExitStack() as stack:
        if whose == "our own":
            db = stack.enter_context(views.transaction())
        else:
            db = stack.enter_context(closing(sqlite3.connect(views.path, isolation_level=None)))
        db.execute("UPDATE thread_map SET messages_in = 100")
    history.append("a", received())
    engine.advance()
    with views.read() as db:
        assert (
            db.execute("SELECT messages_in FROM thread_map WHERE user = 'a'").fetchone()[0] == 101
        )


@pytest.mark.parametrize("step", ["begun", "applied", "flushed", "moved"])
def test_nothing_is_remembered_of_a_batch_that_was_undone(
    views: Views, history: TestLog, step: str
) -> None:
    fails: list[str] = []

    def failing(now: str) -> None:
        if now in fails:
            fails.clear()
            full = sqlite3.OperationalError("database or disk is full")
            full.sqlite_errorcode = sqlite3.SQLITE_FULL
            raise full

    engine = follower_of(views, history, failing)
    history.chat("ac", turns=2)
    fails.append(step)
    with pytest.raises(sqlite3.OperationalError, match="full"):
        engine.advance()
    history.chat("ab")
    while engine.advance():
        pass
    assert content(views) == naive(history.log)


def test_only_so_many_users_are_remembered(
    views: Views, history: TestLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.projections.people.KEPT_ROWS", 1)
    monkeypatch.setattr("app.projections.turn_latency.KEPT_ROWS", 1)
    engine = follower_of(views, history)
    for users in ("a", "ab", "b", "abc"):
        history.chat(users)
        engine.advance()
        assert engine._kept is not None
        for name in ("thread_map", "client_view"):
            assert len(engine._kept.sessions[name]._rows) <= 1  # type: ignore[attr-defined]
    assert content(views) == naive(history.log)


# -- poison ---------------------------------------------------------------------------------------

BROKEN = NewEvent(TokensIncremented.type_name or "TokensIncremented", b"\xc1")


def test_an_event_that_cannot_be_decoded_parks_who_reads_it_and_nobody_else(
    views: Views, history: TestLog
) -> None:
    good = history.append("a", started("t"), tokens("t", 5))
    history.append_raw("a", CODEC.encode(tokens("t", 7)), BROKEN)
    history.chat("b")
    build(views, history)
    follow(views, history)
    parked, live = views.standings()["token_totals"], views.standings()["thread_map"]
    assert (parked.state, parked.cursor.position) == ("parked", good)
    assert parked.error is not None
    assert f"event at {good + 2} cannot be read: TokensIncremented" in parked.error
    assert (live.state, live.cursor.position) == ("live", history.log.head().position)
    everything = content(views)
    assert everything["token_totals"] == naive(history.log, good)["token_totals"]


def test_a_schema_that_a_newer_release_wrote_is_not_passed_over(
    views: Views, history: TestLog
) -> None:
    history.append_raw("a", NewEvent("MessageReceived@2", CODEC.encode(received()).state))
    build(views, history)
    follow(views, history)
    parked = views.standings()["thread_map"]
    assert parked.state == "parked"
    assert "newer than this release" in str(parked.error)
    assert views.standings()["token_totals"].state == "live"


def test_a_type_that_no_model_wants_parks_nobody(views: Views, history: TestLog) -> None:
    history.append_raw("a", NewEvent("SomethingNew", b"\xc1"))
    build(views, history)
    follow(views, history)
    assert {s.state for s in views.standings().values()} == {"live"}


def test_a_parked_model_goes_on_when_a_release_can_read_the_event(
    views: Views, history: TestLog
) -> None:
    history.chat("ab")
    build(views, history)
    follow(views, history, [THREAD_MAP])
    standing = views.standings()["thread_map"]
    engine = Engine(views, history.log, MODELS)
    engine._park(standing, "could not be read then")
    history.chat("c")
    engine.resume()
    follow(views, history)
    assert content(views) == naive(history.log)


class Wary(ReadModel):
    """Counts messages, and cannot take those of one user."""

    name, version, tables = "wary", 1, ("wary",)
    migrations = Migrations("wary")
    events = (MessageReceived,)
    error: Exception = ValueError("not this one")

    def session(self, db: sqlite3.Connection) -> Session:
        return WarySession(db, self.error)


class WarySession(Session):
    def __init__(self, db: sqlite3.Connection, error: Exception) -> None:
        self.db, self.error = db, error

    def apply(self, batch: Sequence[Seen]) -> None:
        for position, stream, *_ in batch:
            if stream == "user/bad":
                raise self.error
            self.db.execute("INSERT INTO wary VALUES (?)", (position,))

    def flush(self) -> None:
        pass


@Wary.migrations()
def wary(db: Database) -> None:
    db.table("wary").create({"position": int}, pk="position")


def test_a_model_that_cannot_apply_an_event_is_parked_just_before_it(
    views: Views, history: TestLog
) -> None:
    history.chat("abc", turns=5)
    good = history.append("d", received())
    history.append("bad", received())
    history.chat("efg", turns=5)
    models = (*MODELS, Wary())
    build(views, history, models)
    follow(views, history, models)
    parked = views.standings()["wary"]
    assert (parked.state, parked.cursor.position) == ("parked", good)
    assert parked.error == f"the append at {good + 1} cannot be applied: ValueError: not this one"
    everything = content(views)
    assert len(everything.pop("wary")["wary"]) == 1 + 16
    assert everything == naive(history.log)


def test_a_full_disk_parks_nobody(views: Views, history: TestLog) -> None:
    history.append("bad", received())
    full = sqlite3.OperationalError("database or disk is full")
    full.sqlite_errorcode = sqlite3.SQLITE_FULL
    model = Wary()
    model.error = full
    build(views, history, [model])
    with pytest.raises(sqlite3.OperationalError, match="full"):
        follow(views, history, [model])
    assert views.standings()["wary"].state == "live"
    assert views.standings()["wary"].cursor.position == Position(0)


# -- another log ----------------------------------------------------------------------------------


def test_a_cursor_of_another_log_stops_the_model_for_a_rebuild(
    views: Views, history: TestLog, tmp_path: Path
) -> None:
    history.chat("ab")
    build(views, history)
    follow(views, history)
    other = TestLog(tmp_path / "other.db")
    other.chat("xyz")
    before = content(views)
    engine = Engine(views, other.log, MODELS)
    engine.verify()
    assert not engine.advance()
    assert {s.state for s in views.standings().values()} == {"building"}
    assert "another event stands there" in str(views.standings()["thread_map"].error)
    assert content(views) == before
    other.close()


def test_a_log_that_went_back_stops_the_model_for_a_rebuild(
    views: Views, history: TestLog, tmp_path: Path
) -> None:
    history.chat("ab")
    build(views, history)
    follow(views, history)
    other = TestLog(tmp_path / "other.db")
    other.chat("a")
    assert not Engine(views, other.log, [TOKEN_TOTALS]).advance()
    assert views.standings()["token_totals"].state == "building"
    assert views.standings()["thread_map"].state == "live"
    other.close()


class Exchanged:
    """A log behind an address, where another log is found from `exchange` on."""

    def __init__(self, before: TestLog, after: TestLog) -> None:
        self._log, self._after = before.log, after.log
        self._connections = 1

    def connections(self) -> int:
        return self._connections

    def exchange(self, _: str = "") -> None:
        self._log = self._after
        self._connections = 2

    def __getattr__(self, name: str) -> object:
        return getattr(self._log, name)


@pytest.fixture
def exchanged(history: TestLog, tmp_path: Path) -> Iterator[Exchanged]:
    """A log that may be exchanged for a longer one with another past."""
    other = TestLog(tmp_path / "other.db")
    history.chat("ab")
    other.chat("ba", turns=3)
    yield Exchanged(history, other)
    other.close()


def test_a_log_that_is_another_one_after_a_reconnect_stops_the_models_for_a_rebuild(
    views: Views, history: TestLog, exchanged: Exchanged
) -> None:
    build(views, history)
    engine = Engine(views, cast("LogReader", exchanged), MODELS)
    while engine.advance():
        pass
    exchanged.exchange()
    assert not engine.advance()
    assert {s.state for s in views.standings().values()} == {"building"}


def test_a_log_that_is_exchanged_within_a_batch_moves_nothing(
    views: Views, history: TestLog, exchanged: Exchanged
) -> None:
    build(views, history)
    engine = Engine(views, cast("LogReader", exchanged), MODELS, window=4)
    engine.advance()
    before = views.standings()
    passing = Engine(
        views,
        cast("LogReader", exchanged),
        MODELS,
        at_step=lambda step: exchanged.exchange() if step == "begun" else None,
    )
    with pytest.raises(CursorMismatch):
        passing.advance()
    assert views.standings() == before

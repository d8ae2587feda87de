"""What moving house promises: the same log at the other end, or none; the source as it was."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar
from urllib.parse import urlsplit

import pytest

from eventstore import migrate
from eventstore.errors import (
    CopyDiffers,
    CopyFailed,
    HalfCopied,
    LogUnavailable,
    StoreLocked,
)
from eventstore.integrity import leaf_hash
from eventstore.migrate import Say
from eventstore.postgres import PostgresLog, PostgresSettings, prepare
from eventstore.store import Beat, LogStore
from eventstore.types import Append, Micros, NewEvent, StreamName, Version, new_append_id
from tests.postgres import Databases
from tests.unit.eventstore.moving import (
    SCHEMA,
    End,
    PostgresEnd,
    SqliteEnd,
    contents,
    copy,
    fill,
    goes_on,
    quietly,
)

T = TypeVar("T")
ROOT = Path(__file__).parents[3]
PAGE = 7

COPY_AND_STOP = """
import sys
from pathlib import Path
from eventstore import migrate
from tests.unit.eventstore.moving import PostgresEnd, SqliteEnd

kind, one, two, stop_at, stop_after, page = sys.argv[1:]
migrate.PAGE = int(page)

def say(what, done, total):
    if what == stop_at and done >= int(stop_after):
        print("there", flush=True)
        sys.stdin.read()

sqlite, postgres = SqliteEnd(Path(one)), PostgresEnd(two)
source, target = (sqlite, postgres) if kind == "to_postgres" else (postgres, sqlite)
migrate.move(source.source(), target.target(), say, before_use=lambda: say("complete", 1, 1))
"""


@pytest.fixture(autouse=True)
def _small_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(migrate, "PAGE", PAGE)


@pytest.fixture
def sqlite(tmp_path: Path) -> SqliteEnd:
    return SqliteEnd(tmp_path / "log.db")


@pytest.fixture
def postgres_end(postgres_url: str) -> PostgresEnd:
    return PostgresEnd(postgres_url)


@pytest.fixture(params=["to_postgres", "to_sqlite"])
def ends(
    request: pytest.FixtureRequest, sqlite: SqliteEnd, postgres_end: PostgresEnd
) -> tuple[End, End]:
    """A log, and where it is to go."""
    source: End
    target: End
    source, target = sqlite, postgres_end
    if request.param == "to_sqlite":
        source, target = target, source
    log = source.open()
    fill(log)
    source.execute("UPDATE head SET epoch = 3")
    fill(log, 20)
    log.close()
    return source, target


def look(end: End, at: Callable[[LogStore], T]) -> T:
    log = end.open()
    try:
        return at(log)
    finally:
        log.close()


# --- the same log --------------------------------------------------------------------------------


def test_a_log_arrives_as_it_was_and_goes_on_at_the_next_position(ends: tuple[End, End]) -> None:
    source, target = ends
    moved = copy(source, target)
    before, after = look(source, contents), look(target, contents)
    assert before == after
    assert [*map(leaf_hash, before[1])] == [*map(leaf_hash, after[1])]
    assert before[0].epoch == 3
    assert len(before[1]) == before[0].position == moved.head.position > 10 * PAGE
    assert moved.streams == len(before[2])
    assert moved.keys == sum(event.key is not None for event in before[1])
    assert look(target, goes_on) == moved.head.position + 1


def test_there_and_back_again_every_row_is_the_same(
    tmp_path: Path, sqlite: SqliteEnd, postgres_end: PostgresEnd
) -> None:
    log = sqlite.open()
    fill(log)
    log.close()
    copy(sqlite, postgres_end)
    back = SqliteEnd(tmp_path / "back" / "log.db")
    copy(postgres_end, back)
    assert back.everything() == sqlite.everything()


def test_the_target_is_guarded_as_one_that_was_never_copied(
    tmp_path: Path, postgres: Databases, ends: tuple[End, End]
) -> None:
    source, target = ends
    copy(source, target)
    fresh: End
    if isinstance(target, PostgresEnd):
        fresh = PostgresEnd(postgres.database())
    else:
        fresh = SqliteEnd(tmp_path / "fresh.db")
    fresh.open().close()
    assert target.schema() == fresh.schema()
    for refused in ("UPDATE events SET state = state", "DELETE FROM head", "DELETE FROM streams"):
        with pytest.raises(Exception, match="hilo: "):
            target.execute(refused)


def test_the_rights_of_the_program_s_role_outlast_the_copy(
    postgres: Databases, postgres_url: str, sqlite: SqliteEnd
) -> None:
    log = sqlite.open()
    fill(log)
    log.close()
    role_url = postgres.role(postgres_url, "program")
    prepare(postgres_url, SCHEMA, role=urlsplit(role_url).username)
    moved = copy(sqlite, PostgresEnd(postgres_url))
    assert look(PostgresEnd(role_url), goes_on) == moved.head.position + 1
    copy(PostgresEnd(role_url), SqliteEnd(sqlite.path.with_name("back.db")))
    postgres.execute(f'DROP OWNED BY "{urlsplit(role_url).username}"', postgres_url)


def test_an_empty_log_moves_too(sqlite: SqliteEnd, postgres_end: PostgresEnd) -> None:
    sqlite.open().close()
    assert copy(sqlite, postgres_end).head.position == 0
    assert look(postgres_end, contents) == look(sqlite, contents)


def test_the_source_is_left_to_the_last_byte(sqlite: SqliteEnd, postgres_end: PostgresEnd) -> None:
    log = sqlite.open()
    fill(log)
    log.close()
    before = hashlib.sha256(sqlite.path.read_bytes()).digest()
    copy(sqlite, postgres_end)
    assert hashlib.sha256(sqlite.path.read_bytes()).digest() == before


# --- interrupted ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("stop_at", "after"),
    [("copying", 5 * PAGE), ("indexing", 1), ("verifying", 3 * PAGE), ("complete", 1)],
)
def test_a_copy_killed_at_any_moment_is_refused_and_goes_on_where_it_was(
    ends: tuple[End, End], sqlite: SqliteEnd, postgres_end: PostgresEnd, stop_at: str, after: int
) -> None:
    source, target = ends
    kind = "to_postgres" if target is postgres_end else "to_sqlite"
    arguments = [kind, str(sqlite.path), postgres_end.url, stop_at, str(after), str(PAGE)]
    with subprocess.Popen(
        [sys.executable, "-c", COPY_AND_STOP, *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        cwd=ROOT,
    ) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == b"there\n"
        child.kill()
    if target is postgres_end:
        with pytest.raises(HalfCopied, match="hilo migrate-store again"):
            target.open()
    else:
        assert not sqlite.path.exists()
    moved = copy(source, target)
    assert moved.resumed_at == (after if stop_at == "copying" else moved.head.position)
    assert look(source, contents) == look(target, contents)
    assert look(target, goes_on) == moved.head.position + 1


def test_a_copy_goes_on_with_pages_of_another_size(
    ends: tuple[End, End], monkeypatch: pytest.MonkeyPatch
) -> None:
    source, target = ends

    def stop(doing: str, done: int, _total: int) -> None:
        if (doing, done) == ("copying", 5 * PAGE):
            raise InterruptedError

    with pytest.raises(InterruptedError):
        _copy_saying(source, target, stop)
    monkeypatch.setattr(migrate, "PAGE", PAGE + 4)
    assert copy(source, target).resumed_at == 5 * PAGE
    assert look(source, contents) == look(target, contents)


def test_a_copy_that_is_complete_is_only_compared_again(ends: tuple[End, End]) -> None:
    source, target = ends
    first = copy(source, target)
    again = copy(source, target)
    assert again.head == first.head
    assert again.resumed_at == first.head.position
    assert look(target, goes_on) == first.head.position + 1


# --- refused -------------------------------------------------------------------------------------


@pytest.mark.parametrize("what", ["state", "key", "append_id"])
def test_an_event_that_was_changed_on_the_way_is_found(ends: tuple[End, End], what: str) -> None:
    source, target = ends
    other = "(SELECT append_id FROM events WHERE position = 3)"
    change = f"UPDATE events SET {what} = {other} WHERE position = 40"

    def tamper(doing: str, done: int, _total: int) -> None:
        if doing == "copying" and done >= 40 > done - PAGE:
            target.execute(change)

    with pytest.raises(CopyDiffers, match="the event at 40 is not"):
        _copy_saying(source, target, tamper)
    assert not isinstance(target, SqliteEnd) or not target.path.exists()


def test_a_stream_that_was_changed_on_the_way_is_found(ends: tuple[End, End]) -> None:
    source, target = ends

    def tamper(doing: str, _done: int, _total: int) -> None:
        if doing == "copying":
            target.execute("UPDATE streams SET name = 'user/other' WHERE id = 3")

    with pytest.raises(CopyDiffers, match="stream 3, "):
        _copy_saying(source, target, tamper)


def _copy_saying(source: End, target: End, say: Say) -> None:
    held, wanted = source.source(), target.target()
    try:
        migrate.move(held, wanted, say, before_use=lambda: None)
    finally:
        held.close()
        wanted.close()


def test_a_target_that_holds_another_log_is_refused_and_stays(ends: tuple[End, End]) -> None:
    source, target = ends
    log = target.open()
    fill(log, 3)
    before = contents(log)
    log.close()
    with pytest.raises(CopyFailed, match="holds another log already"):
        copy(source, target)
    assert look(target, contents) == before


def test_a_target_that_a_server_has_made_but_not_used_is_taken(ends: tuple[End, End]) -> None:
    source, target = ends
    target.open().close()
    copy(source, target)
    assert look(source, contents) == look(target, contents)


def test_a_half_copy_of_a_log_that_went_on_is_refused(ends: tuple[End, End]) -> None:
    source, target = ends
    held, wanted = source.source(), target.target()
    wanted.begin(held.head())
    held.close()
    wanted.close()
    look(source, goes_on)
    with pytest.raises(CopyFailed, match="copy of another log, or of an older one"):
        copy(source, target)


def test_a_half_copied_log_is_no_source(postgres_end: PostgresEnd, sqlite: SqliteEnd) -> None:
    wanted = postgres_end.target()
    wanted.begin(sqlite.open().head())
    wanted.close()
    with pytest.raises(HalfCopied):
        postgres_end.source()


def test_a_log_whose_nodes_beat_is_neither_source_nor_target(postgres_end: PostgresEnd) -> None:
    log = postgres_end.open()
    log.append_batch([], beats=[Beat("node-1", "a", "1", Micros(0))])
    for opening in (postgres_end.source, postgres_end.target):
        with pytest.raises(StoreLocked, match="served by node-1"):
            opening()
    postgres_end.execute("UPDATE nodes SET beat_at = beat_at - 10000000")  # it fell silent
    postgres_end.source().close()
    log.close()


def test_nobody_appends_while_a_log_is_copied_from_postgresql(postgres_end: PostgresEnd) -> None:
    patience = PostgresSettings(lock_timeout=0.1)
    log = PostgresLog(postgres_end.url, schema=SCHEMA, settings=patience)
    held = postgres_end.source()
    events = (NewEvent("More", b""),)
    append = Append(StreamName("user/1"), Version(0), events, log.head().epoch, new_append_id())
    (answer,) = log.append_batch([append])
    assert isinstance(answer, LogUnavailable)
    held.close()
    (answer,) = log.append_batch([append])
    assert not isinstance(answer, Exception)
    log.close()


def test_two_copies_into_one_schema_do_not_meet(postgres_end: PostgresEnd) -> None:
    first = postgres_end.target()
    with pytest.raises(StoreLocked, match="another copy"):
        postgres_end.target()
    first.close()
    postgres_end.target().close()


def test_a_place_without_a_log_is_no_source(tmp_path: Path, postgres_end: PostgresEnd) -> None:
    with pytest.raises(LogUnavailable, match="there is no log"):
        postgres_end.source()
    with pytest.raises(LogUnavailable):
        SqliteEnd(tmp_path / "nothing.db").source()
    assert not (tmp_path / "nothing.db").exists()


def test_a_damaged_source_is_not_copied(ends: tuple[End, End]) -> None:
    source, target = ends
    if isinstance(source, PostgresEnd):
        source.execute("ALTER TABLE events DISABLE TRIGGER USER")
    else:
        source.execute("DROP TRIGGER events_no_delete")
    source.execute("DELETE FROM events WHERE position = 33")
    with pytest.raises(CopyFailed, match="damaged"):
        _copy_saying(source, target, quietly)

"""A reader that follows the log sees every position once, in order, whoever writes it."""

from __future__ import annotations

from contextlib import ExitStack

import pytest

from tests.conformance.appends import append, check, whole, write
from tests.conformance.processes import Child, follow, write_many
from tests.faults.eventstore.test_kill import each_append_is_whole, each_is_there
from tests.faults.postgres.librarys import LibrarysLog
from tests.faults.postgres.ours import Opener, OurLog
from tests.faults.postgres.tailing import hold_one_writer


def test_the_harness_catches_the_library_s_recorder_with_database_functions(
    postgres_url: str,
) -> None:
    log = LibrarysLog(postgres_url, functions=True)
    seen = hold_one_writer(log, postgres_url)
    log.close()
    assert seen.overtaken
    assert seen.skipped == [2]
    assert seen.readers == [[1, 3, 4]] * 2


def test_without_database_functions_the_library_s_recorder_skips_nothing(
    postgres_url: str,
) -> None:
    log = LibrarysLog(postgres_url, functions=False)
    seen = hold_one_writer(log, postgres_url)
    log.close()
    assert not seen.overtaken
    assert seen.readers == [seen.stored] * 2
    assert seen.skipped == []


def test_no_reader_of_ours_is_overtaken_by_a_writer(postgres_url: str) -> None:
    log = OurLog(postgres_url)
    seen = hold_one_writer(log, postgres_url)
    log.close()
    assert not seen.overtaken
    assert seen.stored == [1, 2, 3, 4]
    assert seen.readers == [seen.stored] * 2


@pytest.mark.slow
def test_with_four_writing_processes_every_reader_sees_every_position_once(
    postgres_url: str,
) -> None:
    opener = Opener(postgres_url)
    log = opener.open()
    with ExitStack() as stack:
        writers = [stack.enter_context(Child(write_many, opener, n, 60)) for n in range(4)]
        readers = [stack.enter_context(Child(follow, opener, "the/end")) for _ in range(2)]
        for child in (*writers, *readers):
            assert child.hear() == "ready"
        for child in writers:
            child.say("go")
        acknowledged = [told for child in writers for told in iter(child.hear, "done")]
        write(log, append("the/end"))
        events = whole(log)
        check(events)
        for child in readers:
            assert child.hear() == list(range(1, len(events) + 1))
    log.close()
    assert len(acknowledged) == 4 * 60
    each_append_is_whole(events[:-1])
    each_is_there(acknowledged, events)

"""A reader that follows the log sees every position once, in order, whoever writes it."""

from __future__ import annotations

from tests.faults.postgres.librarys import LibrarysLog
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

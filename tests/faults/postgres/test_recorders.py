"""The library's recorders over the log lose no append, and settle a COMMIT that was lost."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Literal

import pytest
from eventsourcing.persistence import (
    ApplicationRecorder,
    IntegrityError,
    OperationalError,
    StoredEvent,
)

from eventstore.postgres_recorders import Factory
from tests.conformance.appends import check, whole
from tests.faults.postgres.stage import SCHEMA, Stage
from tests.postgres import library_settings


@contextmanager
def recording(stage: Stage) -> Iterator[ApplicationRecorder]:
    """A recorder on the log, through the network."""
    settings = library_settings(stage.proxy.url(stage.url))
    with Factory(settings | {"POSTGRES_SCHEMA": SCHEMA, "POSTGRES_LOCK_TIMEOUT": "1"}) as factory:
        yield factory.application_recorder()


def said(version: int) -> StoredEvent:
    return StoredEvent("a", version, "Said", b"")


@pytest.mark.parametrize(("when", "kept"), [("before", False), ("after", True)])
def test_an_append_whose_commit_was_lost_is_looked_for(
    stage: Stage, when: Literal["before", "after"], *, kept: bool
) -> None:
    with recording(stage) as recorder:
        recorder.insert_events([said(1)])
        trap = stage.proxy.cut_around(b"COMMIT", when)
        if kept:
            assert recorder.insert_events([said(2), said(3)]) == [2, 3]
        else:
            with pytest.raises(OperationalError):
                recorder.insert_events([said(2), said(3)])
            assert recorder.max_notification_id() == 1
            assert recorder.insert_events([said(2), said(3)]) == [2, 3]
        assert trap.sprung.is_set()
    check(whole(stage.truth))


def test_all_connections_of_the_pool_may_be_lost_with_a_commit(stage: Stage) -> None:
    with recording(stage) as recorder:
        recorder.insert_events([said(1)])
        with ThreadPoolExecutor(1) as pool, stage.head_locked():
            inserted = pool.submit(recorder.insert_events, [said(2)])
            stage.wait_for_waiters()
            stage.proxy.cut()
            with pytest.raises(OperationalError):
                inserted.result()
        assert recorder.select_events("a")[-1].originator_version == 1
    check(whole(stage.truth))


def test_a_version_that_is_taken_is_refused_without_a_gap(stage: Stage) -> None:
    with recording(stage) as recorder:
        recorder.insert_events([said(1)])
        with pytest.raises(IntegrityError):
            recorder.insert_events([said(1)])
        with pytest.raises(IntegrityError):
            recorder.insert_events([said(3)])
        assert recorder.insert_events([said(2)]) == [2]
    check(whole(stage.truth))


def test_database_functions_are_refused(stage: Stage) -> None:
    settings = library_settings(stage.url) | {"POSTGRES_ENABLE_DB_FUNCTIONS": "y"}
    with pytest.raises(OSError, match=r"POSTGRES_ENABLE_DB_FUNCTIONS .* leave it off"):
        Factory(settings)

"""The `eventsourcing` library's own PostgreSQL recorder, before the harness and for comparison."""

from __future__ import annotations

from collections.abc import Iterator
from uuid import uuid4

from eventsourcing.persistence import StoredEvent
from eventsourcing.postgres import PostgresApplicationRecorder, PostgresFactory

from tests.postgres import library_settings


class LibrarysLog:
    """Its application recorder, with or without its database functions."""

    table = ("public", "stored_events")
    type_column = "topic"

    def __init__(self, url: str, *, functions: bool) -> None:
        switch = {"POSTGRES_ENABLE_DB_FUNCTIONS": "yes" if functions else "no"}
        self._factory = PostgresFactory(library_settings(url) | switch)
        recorder = self._factory.application_recorder()
        assert isinstance(recorder, PostgresApplicationRecorder)
        self._recorder = recorder

    def write(self, kind: str) -> int:
        ids = self._recorder.insert_events([StoredEvent(uuid4(), 1, kind, b"")])
        assert ids is not None
        return int(ids[0])

    def follow(self) -> Iterator[tuple[int, str]]:
        with self._recorder.subscribe() as subscription:
            for notification in subscription:
                yield notification.id, notification.topic

    def stored(self) -> list[int]:
        return [n.id for n in self._recorder.select_notifications(1, 1_000_000)]

    def close(self) -> None:
        self._factory.close()

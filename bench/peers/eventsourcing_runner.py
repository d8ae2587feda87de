"""The `eventsourcing` library's projection runner, as its documentation shows it.

Its log is in PostgreSQL, because its SQLite recorder cannot be subscribed to; its view is in
memory, which is its fastest. The view holds a part of what our read models hold: messages, last
activity and tokens of every conversation, events by hour and type, tokens by hour and model. The
same bench turns, decoded by its own mapper.
"""

from __future__ import annotations

import time
from collections import Counter
from datetime import datetime
from pathlib import Path
from typing import Any, Final
from uuid import UUID

from eventsourcing.dispatch import singledispatchmethod
from eventsourcing.persistence import Tracking
from eventsourcing.popo import POPOTrackingRecorder
from eventsourcing.projection import Projection, ProjectionRunner

from bench.peers.eventsourcing_library import FEW_ROWS_A_COMMIT, Conversations, history_of
from bench.people import TurnMaker, open_keyring, register

_PATIENCE: Final = 600
_USERS_SHARE: Final = 20


class MemoryView(POPOTrackingRecorder):
    """Figures of every conversation and hour, and how far they are."""

    def __init__(self) -> None:
        super().__init__()
        self.messages: Counter[UUID] = Counter()
        self.tokens: Counter[UUID] = Counter()
        self.active: dict[UUID, datetime] = {}
        self.events: Counter[tuple[int, str]] = Counter()
        self.usage: Counter[tuple[int, str]] = Counter()

    def note(self, event: Any, tracking: Tracking) -> None:  # noqa: ANN401
        """Count an event and move on, together."""
        kind, conversation = type(event).__name__, event.originator_id
        hour = int(event.timestamp.timestamp()) // 3600
        with self._database_lock:
            self._assert_tracking_uniqueness(tracking)
            self._insert_tracking(tracking)
            self.events[hour, kind] += 1
            if kind == "MessageReceived":
                self.messages[conversation] += 1
                self.active[conversation] = event.timestamp
            elif kind == "TokensIncremented":
                self.tokens[conversation] += event.total
                self.usage[hour, event.model] += event.total


class Counting(Projection[MemoryView]):
    """What the view is told of each event."""

    @singledispatchmethod
    def process_event(self, domain_event: Any, tracking: Tracking) -> None:  # noqa: ANN401
        """Note it."""
        self.view.note(domain_event, tracking)


class Runner:
    """A log of so many events, and the runner over it from the start."""

    def __init__(self, environment: dict[str, str], events: int, directory: Path) -> None:
        """Fill the log; `environment` says which PostgreSQL it is in."""
        self._environment = environment = {
            **environment,
            "CONVERSATIONS_PERSISTENCE_MODULE": "eventsourcing.postgres",
            "COUNTING_PERSISTENCE_MODULE": "eventsourcing.popo",
        }
        directory.mkdir(parents=True)
        keyring = open_keyring(directory)
        application = Conversations(env=environment)
        try:
            people = register(keyring, max(1, events // _USERS_SHARE))
            maker = TurnMaker(keyring)
            history_of(application, people, maker, events, rows_a_commit=FEW_ROWS_A_COMMIT)
            self.events: int = application.recorder.max_notification_id() or 0
        finally:
            application.close()
            keyring.close()

    def run(self) -> float:
        """Project the whole log; return events a second."""
        start = time.perf_counter()
        with ProjectionRunner(
            application_class=Conversations,
            projection_class=Counting,
            view_class=MemoryView,
            env=self._environment,
        ) as runner:
            runner.wait(self.events, timeout=_PATIENCE)
            spent = time.perf_counter() - start
        return self.events / spent

"""The `eventsourcing` library's projection runner, as its documentation shows it.

Its log is in PostgreSQL, because its SQLite recorder cannot be subscribed to; its view is in
memory, which is its fastest: it counts, for every conversation, messages and tokens. The same
bench turns, decoded by its own mapper.
"""

from __future__ import annotations

import time
from collections import Counter
from pathlib import Path
from typing import Any, Final
from uuid import UUID

from eventsourcing.dispatch import singledispatchmethod
from eventsourcing.persistence import Tracking
from eventsourcing.popo import POPOTrackingRecorder
from eventsourcing.projection import Projection, ProjectionRunner

from bench.peers.eventsourcing_library import Conversations, history_of
from bench.people import TurnMaker, open_keyring, register

_PATIENCE: Final = 600
_USERS_SHARE: Final = 20
_ROWS_A_COMMIT: Final = 200


class MemoryView(POPOTrackingRecorder):
    """Counts by conversation, and how far they are."""

    def __init__(self) -> None:
        super().__init__()
        self.messages: Counter[UUID] = Counter()
        self.tokens: Counter[UUID] = Counter()

    def count(self, of: Counter[UUID], conversation: UUID, more: int, tracking: Tracking) -> None:
        """Add to one count and move on, together."""
        with self._database_lock:
            self._assert_tracking_uniqueness(tracking)
            self._insert_tracking(tracking)
            of[conversation] += more

    def pass_by(self, tracking: Tracking) -> None:
        """Move on."""
        self.insert_tracking(tracking)


class Counting(Projection[MemoryView]):
    """What the view is told of each event."""

    @singledispatchmethod
    def process_event(self, domain_event: Any, tracking: Tracking) -> None:  # noqa: ANN401
        """Count it."""
        match type(domain_event).__name__:
            case "MessageReceived":
                self.view.count(self.view.messages, domain_event.originator_id, 1, tracking)
            case "TokensIncremented":
                more = domain_event.total
                self.view.count(self.view.tokens, domain_event.originator_id, more, tracking)
            case _:
                self.view.pass_by(tracking)


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
            # Longer pipelines of its PostgreSQL recorder never come to an end.
            history_of(application, people, maker, events, rows_a_commit=_ROWS_A_COMMIT)
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

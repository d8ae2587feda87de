"""What the recorders of both stores share: their rows, and following the log by polling."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any
from uuid import UUID

from eventsourcing.persistence import (
    ApplicationRecorder,
    Notification,
    StoredEvent,
    Subscription,
)

_POLL_SECONDS = 0.01
_PAGE = 500


def stream_name(originator_id: UUID | str) -> str:
    """Return the name of the stream that holds an aggregate of the library."""
    return originator_id.hex if isinstance(originator_id, UUID) else originator_id


def stored_event(originator_id: UUID | str, row: Mapping[str, Any]) -> StoredEvent:
    """Return a row of the log as the library's event of an aggregate."""
    return StoredEvent(
        originator_id=originator_id,
        originator_version=row["version"],
        topic=row["type"],
        state=row["state"],
    )


def notification(originator_id: UUID | str, row: Mapping[str, Any]) -> Notification:
    """Return a row of the log as the library's notification."""
    return Notification(
        id=row["position"],
        originator_id=originator_id,
        originator_version=row["version"],
        topic=row["type"],
        state=row["state"],
    )


def position_before(start: int | None, *, inclusive_of_start: bool) -> int:
    """Return the position after which the library wants to read."""
    return 0 if start is None else start - inclusive_of_start


class FollowedRecorder(ApplicationRecorder):
    """An application recorder that is followed by looking at it again and again."""

    def subscribe(
        self, gt: int | None = None, topics: Sequence[str] = ()
    ) -> Subscription[ApplicationRecorder]:
        """Return an iterator that catches up and then follows the log."""
        return LogSubscription(recorder=self, gt=gt, topics=topics)


class LogSubscription(Subscription[ApplicationRecorder]):
    """The library's subscription: every notification once, in order, until stopped."""

    def __init__(
        self, recorder: ApplicationRecorder, gt: int | None = None, topics: Sequence[str] = ()
    ) -> None:
        """Start after position `gt` (the beginning, if None)."""
        super().__init__(recorder=recorder, gt=gt, topics=topics)
        self._after = gt or 0
        self._ready: deque[Notification] = deque()
        self._stopped = threading.Event()

    def stop(self) -> None:
        """End the iteration, from any thread."""
        super().stop()
        self._stopped.set()

    def __next__(self) -> Notification:
        """Return the next notification, waiting for it. Raises `StopIteration` when stopped."""
        while not self._ready and not self._has_been_stopped:
            if not self._look():
                self._stopped.wait(_POLL_SECONDS)
        if self._has_been_stopped:
            raise StopIteration
        return self._ready.popleft()

    def _look(self) -> bool:
        """Fetch what is new. What the topics leave out is passed over once, not at every look."""
        head = self._recorder.max_notification_id() or 0
        if head <= self._after:
            return False
        found = self._recorder.select_notifications(
            self._after, _PAGE, stop=head, topics=self._topics, inclusive_of_start=False
        )
        self._after = found[-1].id if len(found) == _PAGE else head
        self._ready.extend(found)
        return True

"""What was before Hilo, told to a user's stream afterwards (A17).

What Hilo has seen itself is never overruled: an import fills in what is missing, and among imports
the newer file wins. Nothing here waits for an answer.
"""

from __future__ import annotations

from typing import Literal

from app.aggregates import events as e
from app.aggregates.answers import Done, Nothing, Outcome
from app.aggregates.run_holder import RunHolder
from app.aggregates.user_thread import LEGACY_THREAD
from eventstore.sealing import Sealed
from eventstore.types import IdempotencyKey, Micros


class UserImport(RunHolder):
    """Decisions about what a file says of a user. `as_of` is the instant (µs) it speaks of."""

    __slots__ = ()

    def import_message(  # noqa: PLR0913 - a message has as many parts
        self,
        key: IdempotencyKey,
        kind: str,
        content: Sealed[e.Content],
        *,
        sender: Literal["person", "business"],
        at: Micros,
        now: Micros,
    ) -> Done:
        """Record what one of both sides wrote at `at`."""
        event = e.MessageImported(ref=key, kind=kind, content=content, sender=sender, at=at)
        return self._record(event, now, key)

    def import_profile(self, profile: Sealed[e.Profile], *, as_of: Micros, now: Micros) -> Outcome:
        """Record name and labels, unless something newer is known. The caller has compared them."""
        if self.state.profile is not None and not self.is_news(as_of):
            return Nothing()
        return self._record(e.ProfileUpdated(profile=profile, at=as_of), now)

    def import_thread(self, thread: str, *, as_of: Micros, at: Micros, now: Micros) -> Outcome:
        """Link the thread that the person had at `as_of`, begun at `at`.

        Never in place of a conversation of Hilo's own, nor after one.
        """
        self._decide()
        s = self.state
        if s.thread is None:
            if s.last_reset is not None:
                return Nothing()
            return self._record(e.ThreadStarted(thread=thread, reason="first_time", at=at), now)
        old = s.thread.id
        if old == thread or not old.startswith(LEGACY_THREAD) or not self.is_news(as_of):
            return Nothing()
        left = e.ThreadReset(
            thread=old, reason="thread_changed", left_behind=s.thread.tokens, at=as_of
        )
        self._trigger(left, now)
        started = e.ThreadStarted(thread=thread, reason="thread_changed", at=at, cau=self.version)
        return self._record(started, now)

    def import_activity(self, *, as_of: Micros, now: Micros) -> Outcome:
        """Move the client view's last activity to `as_of`, never back."""
        self._decide()
        if not self.is_news(as_of):
            return Nothing()
        thread = self.state.thread
        event = e.ActivityRecorded(
            last_activity=as_of,
            tokens=0 if thread is None else thread.tokens,
            thread=None if thread is None else thread.id,
            at=as_of,
        )
        return self._record(event, now)

    def is_news(self, as_of: int) -> bool:
        """Tell whether a file of that time may know what the log does not."""
        return as_of > self.state.activity_at

"""The OpenAI conversation of a user, and the tokens that belong to it (A7, A8, A9, B2)."""

from __future__ import annotations

from app.aggregates import events as e
from app.aggregates.answers import (
    Nothing,
    Outcome,
    ThreadEnd,
    ThreadKept,
    ThreadLeft,
    ThreadLinked,
    ThreadNeed,
    ThreadStart,
)
from app.aggregates.run_holder import RunHolder
from app.aggregates.user_state import UserState
from eventstore.types import Micros

LEGACY_THREAD = "thread_"
"""How ids of the Assistants API begin: such threads come from an import (A17)."""

ACTIVITY_DELAY = 600_000_000
"""µs between the last event and its record in the client view (M003: 10 minutes)."""


def activity_due_at(state: UserState, delay: int) -> Micros | None:
    """When the client view is to be moved; None: it is, or nobody was ever active."""
    if not state.touched_at or not state.activity_at:  # an imported thread alone is no activity
        return None
    return Micros(state.touched_at + delay)


class UserThread(RunHolder):
    """Decisions about the thread. Tokens belong to a thread, not to the user."""

    __slots__ = ()

    def thread_needs(self, now: Micros, max_age: int) -> ThreadNeed:
        """Tell what must happen before a run: `start` one, `renew` an old one, or nothing.

        `refill`: it is of the Assistants API, where nothing runs any more.
        """
        thread = self.state.thread
        if thread is None:
            return "start"
        if thread.id.startswith(LEGACY_THREAD):
            return "refill"
        return "renew" if now - thread.started_at >= max_age else "ok"

    def start_thread(
        self,
        thread: str,
        *,
        now: Micros,
        reason: e.ResetReason | None = None,
        run: str | None = None,
        last_item: str | None = None,
    ) -> ThreadStart:
        """Link a new conversation, its count at 0; the one it replaces is left behind.

        With `run`, only while that run is current. `last_item` is the newest item of one that was
        filled with what was said before.

        Without a `reason` the log knows it: `first_time`, why the last thread was left, or
        `thread_changed` if one is linked; `user_not_found` for a user never registered.
        """
        self._decide()
        if run is not None and not self._holds(run):
            return self._superseded(run)
        old = self.state.thread
        if old is not None and old.id == thread:
            return ThreadKept()
        why = reason or self._start_reason()
        if old is None:
            started = e.ThreadStarted(thread=thread, reason=why, last_item=last_item)
            self._trigger(started, now)
            return ThreadLinked(thread, why)
        self._trigger(e.ThreadReset(thread=old.id, reason=why, left_behind=old.tokens), now)
        started = e.ThreadStarted(thread=thread, reason=why, last_item=last_item, cau=self.version)
        self._trigger(started, now)
        return ThreadLinked(thread, why, old.id, old.tokens)

    def _start_reason(self) -> e.ResetReason:
        s = self.state
        if s.thread is not None:
            return "thread_changed"
        if s.last_reset is not None:
            return s.last_reset
        return "first_time" if s.contact is not None else "user_not_found"

    def reset_thread(
        self, reason: e.ResetReason, *, thread: str, now: Micros, run: str | None = None
    ) -> ThreadEnd:
        """Unlink `thread` if it is the current one; `empty` keeps it and sets its count to 0.

        With `run`, only while that run is current.
        """
        self._decide()
        if run is not None and not self._holds(run):
            return self._superseded(run)
        current = self.state.thread
        if current is None or current.id != thread:
            return ThreadKept()
        if reason == "empty" and current.tokens == 0:
            return ThreadKept()
        event = e.ThreadReset(thread=thread, reason=reason, left_behind=current.tokens)
        self._trigger(event, now)
        return ThreadLeft(thread, reason, current.tokens)

    def empty_thread(self, *, thread: str, now: Micros, run: str | None = None) -> ThreadEnd:
        """Set the count to 0: the conversation turned out to hold nothing."""
        return self.reset_thread("empty", thread=thread, now=now, run=run)

    def clean_up(self, *, limit: int, now: Micros, cleanup: str | None = None) -> ThreadEnd:
        """Unlink the thread if it counts `limit` tokens or more at this very moment (B2).

        `cleanup` is the id of the run of the clean-up that looks; the event's correlation.
        """
        self._decide()
        current = self.state.thread
        if current is None or current.tokens < limit:
            return ThreadKept()
        event = e.ThreadReset(
            thread=current.id, reason="cleanup", left_behind=current.tokens, cor=cleanup
        )
        self._trigger(event, now)
        return ThreadLeft(current.id, "cleanup", current.tokens)

    def activity_due_at(self, delay: int = ACTIVITY_DELAY) -> Micros | None:
        """When the client view is to be moved: `delay` µs after the last event; None: it is."""
        return activity_due_at(self.state, delay)

    def record_activity(self, *, now: Micros, delay: int = ACTIVITY_DELAY) -> Outcome:
        """Move the client view, last activity and token count together, if it is time.

        A `delay` of 0 flushes, as at shutdown. The count is the current thread's: M003's sum
        of what was recorded and what came since, or only the latter if the thread changed.
        """
        self._decide()
        due = self.activity_due_at(delay)
        if due is None or due > now:
            return Nothing()
        s = self.state
        event = e.ActivityRecorded(
            last_activity=s.activity_at,
            tokens=0 if s.thread is None else s.thread.tokens,
            thread=None if s.thread is None else s.thread.id,
        )
        return self._record(event, now)

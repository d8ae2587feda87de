"""The turn: when messages are due, who answers them, and how the attempt ends (A4, A5, A13, A20).

`RunStarted` is the only lock. Whoever holds it says its run's id with everything it reports; a
run that is no longer current is told so (`RunSuperseded`) and nothing is recorded.
"""

from __future__ import annotations

from app.aggregates import events as e
from app.aggregates import open_work as w
from app.aggregates.answers import (
    Apology,
    Billed,
    BufferPolicy,
    Busy,
    Claim,
    Claimed,
    Completed,
    GivenUp,
    Held,
    HeldByAnother,
    NotDue,
    Nothing,
    NothingLeft,
    OnlyParked,
    Outcome,
    RunCompletion,
    RunEnd,
    RunSubmission,
    Submitted,
    TakeOver,
    Waiting,
)
from app.aggregates.run_holder import RunHolder
from app.aggregates.user_state import UserState
from eventstore.sealing import Sealed
from eventstore.types import Micros

MAX_ORPHANED = 3
"""Attempts after which an orphaned turn is parked."""


def due_at(state: UserState, policy: BufferPolicy) -> Micros | None:
    """When the messages that wait become a turn; None while nothing can: the rule of A4.

    Quiet after the last message or sign of typing, at most `longest` after the first message,
    at once when `most` wait; never while a run or a delivery is open, nor before `retry_at`.
    """
    waiting = state.pending
    if not waiting or state.run is not None or state.delivery is not None:
        return None
    if len(waiting) >= policy.most:
        due = waiting[policy.most - 1].at
    elif w.total(waiting) >= policy.most:
        due = waiting[-1].at
    else:
        quiet = max(waiting[-1].at, state.typing_at) + policy.quiet
        due = min(quiet, waiting[0].at + policy.longest)
    return Micros(max(due, state.retry_at))


class UserTurn(RunHolder):
    """Decisions about runs. None is possible for a read-only user."""

    __slots__ = ()

    def due_at(self, policy: BufferPolicy) -> Micros | None:
        """When `claim` will succeed if nothing else happens; see the function `due_at`."""
        return due_at(self.state, policy)

    def claim(
        self, run: str, *, node: str, incarnation: str, now: Micros, policy: BufferPolicy
    ) -> Claim:
        """Take the turn for `run`, a new id. It answers every message that waits now."""
        self._decide()
        s = self.state
        if s.run is not None:
            return Busy(s.run.id)
        if s.delivery is not None:
            return Busy(s.delivery.run)
        due = due_at(s, policy)
        if due is None:
            return NotDue(None) if s.parked is None else OnlyParked()
        if due > now:
            return NotDue(due)
        attempt, up_to = s.attempts + 1, s.pending[-1].version
        event = e.RunStarted(
            run=run,
            node=node,
            incarnation=incarnation,
            attempt=attempt,
            up_to=up_to,
            cor=run,
            cau=up_to,
        )
        self._trigger(event, now)
        return Claimed(run, attempt, up_to)

    def take_over(
        self, run: str, dead: str, *, node: str, incarnation: str, now: Micros
    ) -> TakeOver:
        """Hold a run, or the delivery of its reply, in the place of the incarnation `dead`.

        Of several that try, one does; from then on its predecessor can record nothing of the run.
        """
        self._decide()
        s = self.state
        holder: w.Run | w.Delivery | None = None
        if s.run is not None and s.run.id == run:
            holder = s.run
        elif s.delivery is not None and s.delivery.run == run:
            holder = s.delivery
        if holder is None:
            return self._superseded(run)
        if holder.incarnation == incarnation:
            return Held(run)
        if holder.incarnation != dead:
            return HeldByAnother(run, holder.incarnation)
        event = e.TurnTakenOver(
            run=run, node=node, incarnation=incarnation, before=dead, cor=run, cau=holder.version
        )
        self._trigger(event, now)
        return Held(run)

    def run_submitted(
        self, run: str, response: str, *, now: Micros, thread: str | None = None
    ) -> RunSubmission:
        """Record the response's id at its first sign. `thread`: the current one if not given."""
        self._decide()
        current = self.state.run
        if current is None or current.id != run:
            return self._superseded(run)
        event = e.RunSubmitted(
            run=run,
            response=response,
            thread=thread or current.thread,
            cor=run,
            cau=current.version,
        )
        self._trigger(event, now)
        return Submitted(self.version)

    def run_completed(  # noqa: PLR0913 - one append says it all, or the ledger could disagree
        self,
        run: str,
        response: str,
        *,
        reply: Sealed[e.Reply],
        parts: int,
        billed: Billed,
        now: Micros,
        thread: str | None = None,
        last_item: str | None = None,
    ) -> RunCompletion:
        """Record reply and usage in one append; the messages are answered, a delivery opens.

        A reply of 0 `parts` (the model had nothing to say) opens none. `thread`: the run's, as
        the log knows it, if not given.
        """
        self._decide()
        current = self.state.run
        if current is None or current.id != run:
            return self._superseded(run)
        event = e.RunCompleted(
            run=run,
            response=response,
            reply=reply,
            parts=parts,
            last_item=last_item,
            cor=run,
            cau=current.version,
        )
        self._trigger(event, now)
        version = self.version
        return Completed(version, self._bill(current, billed, thread or current.thread, now))

    def run_failed(  # noqa: PLR0913
        self,
        run: str,
        code: str,
        *,
        billed: Billed,
        now: Micros,
        response: str | None = None,
        retry_at: int | None = None,
        apology: Apology | None = None,
    ) -> RunEnd:
        """Record that an attempt failed. Without `retry_at` it was the last one: parked.

        `apology` is said at most once for a turn, however often it is retried and parked.
        """
        self._decide()
        current = self.state.run
        if current is None or current.id != run:
            return self._superseded(run)
        claimed = w.claimed(self.state.pending, current)
        event = e.RunFailed(
            run=run,
            code=code,
            retry_at=retry_at,
            response=response or current.response,
            cor=run,
            cau=current.version,
        )
        apologise = None if self.state.apologised else apology
        self._trigger(event, now)
        self._bill(current, billed, current.thread, now)
        if not claimed:
            return NothingLeft()
        if retry_at is None:
            return self._park(current, "failed", apologise, now)
        return Waiting(retry_at)

    def run_cancelled(  # noqa: PLR0913
        self,
        run: str,
        reason: e.CancelReason,
        *,
        billed: Billed,
        now: Micros,
        retry_at: int | None = None,
        apology: Apology | None = None,
        limit: int = MAX_ORPHANED,
    ) -> RunEnd:
        """Record that a run ended without an answer; its turn is put back.

        Only an orphaned run counts as an attempt, and the `limit`-th one parks the turn.
        """
        self._decide()
        current = self.state.run
        if current is None or current.id != run:
            return self._superseded(run)
        claimed = w.claimed(self.state.pending, current)
        final = reason == "orphaned" and current.attempt >= limit
        event = e.RunCancelled(
            run=run,
            reason=reason,
            retry_at=None if final else retry_at,
            cor=run,
            cau=current.version,
        )
        apologise = None if self.state.apologised else apology
        self._trigger(event, now)
        self._bill(current, billed, current.thread, now)
        if not claimed:
            return NothingLeft()
        if final:
            return self._park(current, "orphaned", apologise, now)
        return Waiting(retry_at or 0)

    def turn_retried(self, by: str, *, now: Micros, why: str = "") -> Outcome | Busy:
        """Put parked messages back in front of those that wait; not while a run is open."""
        self._decide()
        if self.state.parked is None:
            return Nothing()
        if self.state.run is not None:
            return Busy(self.state.run.id)
        return self._record(e.TurnRetried(by=by, why=why), now)

    def turn_dropped(self, by: str, *, now: Micros, why: str = "") -> Outcome:
        """Close parked turns without an answer."""
        self._decide()
        if self.state.parked is None:
            return Nothing()
        return self._record(e.TurnDropped(by=by, why=why), now)

    def _bill(self, run: w.Run, billed: Billed, thread: str | None, now: Micros) -> int:
        """Trigger what the run cost; return the tokens recorded."""
        if billed == "nothing":
            return 0
        if billed == "unknown":
            self._trigger(e.UsageUnknown(run=run.id, thread=thread, cor=run.id), now)
            return 0
        if billed.total <= 0:
            return 0
        event = e.TokensIncremented(
            thread=thread or "",
            run=run.id,
            total=billed.total,
            input=billed.input,
            output=billed.output,
            cached=billed.cached,
            reasoning=billed.reasoning,
            model=billed.model,
            cor=run.id,
        )
        self._trigger(event, now)
        return billed.total

    def _park(
        self, run: w.Run, reason: e.ParkReason, apology: Apology | None, now: Micros
    ) -> GivenUp:
        event = e.TurnParked(
            reason=reason,
            attempts=run.attempt,
            up_to=run.up_to,
            run="" if apology is None else apology.run,
            apology=None if apology is None else apology.reply,
            parts=1 if apology is None else apology.parts,
            cor=run.id,
            cau=run.version,
        )
        self._trigger(event, now)
        return GivenUp(run.attempt, apology is not None)

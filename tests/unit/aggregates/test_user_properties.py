"""Whatever happens, in whatever order: what holds for every user."""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from app.aggregates import (
    Apology,
    Billed,
    Claimed,
    Completed,
    GivenUp,
    PartStarted,
    RunSuperseded,
    Spent,
    User,
    fold,
    pack,
    unpack,
)
from app.aggregates import events as e
from app.aggregates.open_work import MAX_EARLY, MAX_SENT, MAX_SIGNS, MAX_WAITING
from app.aggregates.user_state import BLANK, UserState
from eventstore.codec import Event
from eventstore.types import Micros, Version
from tests.unit.aggregates.scenario import POLICY, SECOND, STREAM, at, key, ref, sealed

REFS = st.integers(0, 40)
BILLED: st.SearchStrategy[Billed] = st.one_of(
    st.builds(Spent, st.integers(-5, 5000)), st.sampled_from(["unknown", "nothing"])
)
TIMES = st.one_of(st.none(), st.integers(0, 20 * SECOND))
Batch = tuple[list[Event], Micros]


class Life(RuleBasedStateMachine):
    """A user's life: commands in any order, each an append with its own recorded time."""

    @initialize()
    def be_born(self) -> None:
        self.now = at(0)
        self.user = User(STREAM)
        self.log: list[Batch] = []
        self.committed: tuple[UserState, int] = (BLANK, 0)
        self.runs: list[str] = ["never"]
        self.open: str | None = None
        self.received: set[int] = set()
        self.answered: set[int] = set()
        self.sends: set[tuple[str, int, int]] = set()
        self.numbers = 0

    def commit(self, late: int = 3) -> list[Event]:
        """Append what was triggered, recorded a little later than it was decided."""
        events = [event for event, _ in self.user.collect_events()]
        before, version = self.committed
        assert fold(before, version, events, self.now) == (self.user.state, self.user.version)
        if events:
            recorded_at = Micros(self.now + late)
            self.log.append((events, recorded_at))
            self.committed = fold(before, version, events, recorded_at)
            self.user = User(STREAM, self.committed[0], Version(self.committed[1]))
        return events

    # -- what happens -----------------------------------------------------------------------------

    @rule(seconds=st.sampled_from([0.001, 1, 3, 5, 31, 700]))
    def time_passes(self, seconds: float) -> None:
        self.now = Micros(self.now + round(seconds * SECOND))

    @rule(number=REFS, answerable=st.booleans())
    def write(self, number: int, answerable: bool) -> None:
        if number in self.received:  # the log would refuse its key
            return
        self.received.add(number)
        self.user.receive_message(
            ref(number), "text", sealed(), now=self.now, answerable=answerable
        )
        self.commit()

    @rule(count=st.integers(1, 260))
    def flood(self, count: int) -> None:
        for _ in range(count):
            self.numbers += 1
            self.user.receive_message(ref(1000 + self.numbers), "text", sealed(), now=self.now)
        self.commit()

    @rule(number=REFS, delete=st.booleans())
    def change(self, number: int, delete: bool) -> None:
        early = number not in self.received
        if delete:
            self.user.delete_message(ref(number), key=key("d"), now=self.now, early=early)
        else:
            self.user.edit_message(ref(number), sealed(), key=key("e"), now=self.now, early=early)
        self.commit()

    @rule(number=REFS, how=st.sampled_from(["typing", "human", "echo", "status", "register"]))
    def notice(self, number: int, how: str) -> None:
        user, mark = self.user, ref(5000 + number)
        if how == "typing":
            user.observe_typing("recording", now=self.now)
        elif how == "human":
            user.human_wrote(mark, sealed(), now=self.now)
        elif how == "echo":
            user.echo_observed(mark, sealed(), key=key("o"), now=self.now)
        elif how == "status":
            user.status_changed(mark, "sent", key=key("s"), now=self.now)
        else:
            user.register("whapi", sealed(), now=self.now)
        self.commit()

    # -- runs -------------------------------------------------------------------------------------

    @rule()
    def claim(self) -> None:
        run = f"run{len(self.runs)}"
        due, before = self.user.due_at(POLICY), self.user.state
        answer = self.user.claim(run, node="n", incarnation="1", now=self.now, policy=POLICY)
        assert isinstance(answer, Claimed) == (due is not None and due <= self.now)
        if isinstance(answer, Claimed):
            assert self.open is None, "a turn was claimed twice"
            assert before.delivery is None
            assert not {p.version for p in before.pending} & self.answered
            self.open = run
            self.runs.append(run)
        self.commit()

    def check_current(self, run: str, answer: object) -> bool:
        current = run == self.open
        assert isinstance(answer, RunSuperseded) != current
        return current

    @rule(index=st.integers(0, 3), billed=BILLED, parts=st.integers(0, 3))
    def complete(self, index: int, billed: Billed, parts: int) -> None:
        run = self.runs[-1 - index % len(self.runs)]
        before = self.user.state
        self.user.run_submitted(run, f"resp-{run}", now=self.now)
        answer = self.user.run_completed(
            run, "resp", reply=sealed(), parts=parts, billed=billed, now=self.now, last_item="i"
        )
        if self.check_current(run, answer):
            assert isinstance(answer, Completed)
            assert before.run is not None
            up_to = before.run.up_to
            self.answered |= {p.version for p in before.pending if p.version <= up_to}
            self.open = None
        self.commit()

    @rule(index=st.integers(0, 3), billed=BILLED, retry=TIMES)
    def fail(self, index: int, billed: Billed, retry: int | None) -> None:
        run = self.runs[-1 - index % len(self.runs)]
        answer = self.user.run_failed(
            run,
            "code",
            billed=billed,
            now=self.now,
            retry_at=None if retry is None else self.now + retry,
            apology=Apology(f"sorry-{run}", sealed()),
        )
        if self.check_current(run, answer):
            self.open = None
        events = self.commit()
        apologies = [x for x in events if isinstance(x, e.TurnParked) and x.apology]
        assert len(apologies) == (isinstance(answer, GivenUp) and answer.apologise)

    @rule(reason=st.sampled_from(["orphaned", "thread_busy", "superseded"]), billed=BILLED)
    def cancel(self, reason: e.CancelReason, billed: Billed) -> None:
        run = self.runs[-1]
        answer = self.user.run_cancelled(
            run, reason, billed=billed, now=self.now, apology=Apology(f"sorry-{run}", sealed())
        )
        if self.check_current(run, answer):
            self.open = None
        self.commit()

    @rule(drop=st.booleans())
    def operate(self, drop: bool) -> None:
        if drop:
            self.user.turn_dropped("ana", now=self.now)
        else:
            self.user.turn_retried("ana", now=self.now)
        self.commit()

    # -- deliveries -------------------------------------------------------------------------------

    @precondition(lambda self: self.user.state.delivery is not None)
    @rule(how=st.sampled_from(["start", "sent", "adopt", "retry", "fail", "uncertain"]))
    def deliver(self, how: str) -> None:
        delivery, user = self.user.state.delivery, self.user
        assert delivery is not None
        run, part = delivery.run, delivery.next_part
        mark = ref(7000 + len(self.log))
        if how == "start":
            answer = user.delivery_started(
                run, part, deadline=self.now + 1, incarnation="1", now=self.now
            )
            if isinstance(answer, PartStarted):
                assert delivery.in_flight is None
                assert (run, part, answer.attempt) not in self.sends
                self.sends.add((run, part, answer.attempt))
        elif how in {"sent", "adopt"}:
            user.message_sent(
                run,
                part,
                ref=mark,
                sent=sealed(),
                key=mark,
                now=self.now,
                adopted="list" if how == "adopt" else "",
            )
        elif how == "uncertain":
            user.delivery_uncertain(run, part, attempt=delivery.attempt, now=self.now)
        else:
            retry_at = self.now + SECOND if how == "retry" else None
            user.delivery_failed(
                run, part, "code", attempt=delivery.attempt, now=self.now, retry_at=retry_at
            )
        self.commit()

    # -- threads ----------------------------------------------------------------------------------

    @rule(number=st.integers(0, 3), how=st.sampled_from(["start", "gone", "empty", "clean"]))
    def thread(self, number: int, how: str) -> None:
        user, thread = self.user, f"conv_{number}"
        if how == "start":
            user.start_thread(thread, now=self.now)
        elif how == "gone":
            user.reset_thread("gone", thread=thread, now=self.now)
        elif how == "empty":
            user.empty_thread(thread=thread, now=self.now)
        else:
            user.clean_up(limit=1000, now=self.now)
        self.commit()

    @rule(delay=st.sampled_from([0, 600 * SECOND]))
    def record_activity(self, delay: int) -> None:
        self.user.record_activity(now=Micros(self.now + 10), delay=delay)
        self.commit()

    # -- what always holds ------------------------------------------------------------------------

    @invariant()
    def live_and_replayed_states_agree(self) -> None:
        """Decided one by one or replayed at once, with the recorded times: the same state."""
        live, version = BLANK, 0
        for events, recorded_at in self.log:
            live, version = fold(live, version, events, recorded_at)
        assert live == self.user.state
        assert unpack(pack(live)) == live

    @invariant()
    def the_state_is_bounded(self) -> None:
        state = self.user.state
        assert len(state.pending) <= MAX_WAITING + 1
        assert len(state.parked.messages if state.parked else ()) <= MAX_WAITING
        assert len(state.early_edits) <= MAX_EARLY
        assert len(state.early_deletes) <= MAX_EARLY
        assert len(state.sent) <= MAX_SENT
        assert len(state.delivery.signs if state.delivery else ()) <= MAX_SIGNS
        assert len(pack(state)) < 40_000

    @invariant()
    def an_answered_message_never_waits_again(self) -> None:
        state = self.user.state
        waiting = {p.version for p in state.pending}
        parked = {p.version for p in state.parked.messages} if state.parked else set()
        assert not (waiting | parked) & self.answered
        assert not waiting & parked
        versions = [p.version for p in state.pending]
        assert versions == sorted(versions)

    @invariant()
    def a_run_and_a_delivery_are_never_open_together(self) -> None:
        state = self.user.state
        assert state.run is None or state.delivery is None
        assert (state.run.id if state.run else None) == self.open

    @invariant()
    def tokens_are_what_the_log_counted_on_the_current_thread(self) -> None:
        thread = self.user.state.thread
        total = 0
        for event in [event for events, _ in self.log for event in events]:
            if isinstance(event, e.ThreadStarted | e.ThreadReset):
                total = 0
            elif (
                isinstance(event, e.TokensIncremented)
                and thread is not None
                and event.thread == thread.id
            ):
                total += event.total
        assert (thread.tokens if thread else 0) == (total if thread else 0) >= 0


TestLife = Life.TestCase
TestLife.settings = settings(max_examples=60, stateful_step_count=60)

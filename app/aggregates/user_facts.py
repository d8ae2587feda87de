"""What happens to a user and is recorded as it is: nobody can refuse a fact.

Values from outside come in sealed, ids as refs and keys (HMACs). A message's key is its ref,
HMAC(gateway, channel, message id). `at` is the sender's own time, `now` the log's. A fact that
the log holds already fails its append by its key.
"""

from __future__ import annotations

from app.aggregates import events as e
from app.aggregates import open_work as w
from app.aggregates.answers import Done, Nothing, Outcome
from app.aggregates.stream import Aggregate
from app.aggregates.user_state import UserState
from eventstore.sealing import Sealed
from eventstore.types import IdempotencyKey, Micros

TYPING_EVERY = 3_000_000
"""µs between two signs of typing that are recorded."""


class UserFacts(Aggregate[UserState]):
    """The facts of one user's stream; possible for a read-only user, too."""

    __slots__ = ()

    def register(
        self, gateway: str, chat: Sealed[str], *, now: Micros, key: IdempotencyKey | None = None
    ) -> Outcome:
        """Record who this is, once."""
        if self.state.contact is not None:
            return Nothing()
        return self._record(e.UserRegistered(gateway=gateway, chat=chat), now, key)

    def update_profile(self, profile: Sealed[e.Profile], *, now: Micros) -> Done:
        """Record name and labels. The caller, who can open the last ones, has compared them."""
        return self._record(e.ProfileUpdated(profile=profile), now)

    def receive_message(  # noqa: PLR0913 - a message has as many parts
        self,
        ref: IdempotencyKey,
        kind: str,
        content: Sealed[e.Content],
        *,
        now: Micros,
        at: int | None = None,
        answerable: bool = True,
    ) -> Done:
        """Record a message, keyed by its ref; an answerable one waits for its answer from now on.

        One whose deletion came first does not wait; one whose edit came first waits with the
        edited content.
        """
        event = e.MessageReceived(ref=ref, kind=kind, content=content, answerable=answerable, at=at)
        return self._record(event, now, ref)

    def edit_message(  # noqa: PLR0913
        self,
        ref: bytes,
        content: Sealed[e.Content],
        *,
        key: IdempotencyKey,
        now: Micros,
        at: int | None = None,
        early: bool = False,
    ) -> Done:
        """Record a message's new content. A run that is not submitted yet may still use it.

        `early`: the message's own key is not in the log; the edit is kept until it is.
        """
        waits = self._waiting(ref)
        event = e.MessageEdited(
            ref=ref,
            content=content,
            early=early and waits is None,
            at=at,
            cau=None if waits is None else waits.version,
        )
        return self._record(event, now, key)

    def delete_message(
        self,
        ref: bytes,
        *,
        key: IdempotencyKey,
        now: Micros,
        at: int | None = None,
        early: bool = False,
    ) -> Done:
        """Record that a message was taken back: it waits no more.

        `early`: the message's own key is not in the log; the deletion is kept until it is.
        """
        waits = self._waiting(ref)
        event = e.MessageDeleted(
            ref=ref,
            early=early and waits is None,
            at=at,
            cau=None if waits is None else waits.version,
        )
        return self._record(event, now, key)

    def observe_typing(self, presence: e.Presence, *, now: Micros) -> Outcome:
        """Record typing while a message waits that no run has claimed, at most every 3 s."""
        s = self.state
        if not s.pending or now - s.typing_at < TYPING_EVERY:
            return Nothing()
        if s.run is not None and s.pending[-1].version <= s.run.up_to:
            return Nothing()
        return self._record(e.TypingObserved(presence=presence), now)

    def human_wrote(
        self,
        ref: IdempotencyKey,
        content: Sealed[e.Content],
        *,
        now: Micros,
        at: int | None = None,
    ) -> Done:
        """Record what a human agent wrote, keyed by its ref. It is never answered."""
        return self._record(e.HumanMessageSent(ref=ref, content=content, at=at), now, ref)

    def echo_observed(
        self,
        ref: bytes,
        content: Sealed[e.Content],
        *,
        key: IdempotencyKey,
        now: Micros,
        at: int | None = None,
    ) -> Done:
        """Record that the gateway showed one of the bot's own sends.

        While a delivery is open, one that no `MessageSent` names is among its `signs`.
        """
        return self._record(e.MessageEchoed(ref=ref, content=content, at=at), now, key)

    def status_changed(
        self,
        ref: bytes,
        status: str,
        *,
        key: IdempotencyKey,
        now: Micros,
        at: int | None = None,
    ) -> Done:
        """Record what became of a sent message; a sign of it, as an echo is."""
        return self._record(e.MessageStatusChanged(ref=ref, status=status, at=at), now, key)

    def _waiting(self, ref: bytes) -> w.Pending | None:
        parked = self.state.parked
        messages = self.state.pending if parked is None else self.state.pending + parked.messages
        return next((entry for entry in messages if entry.ref == ref), None)

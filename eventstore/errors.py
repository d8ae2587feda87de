"""The error tree of the log.

Each error is called what happened, and says what to do next.

    EventStoreError
    ├── Conflict                   another append came first: fast-forward and decide again
    ├── DuplicateKey               an idempotency key is in the log already: a no-op, durable
    ├── EpochMismatch              the log was restored since the caller read it
    ├── AppendRejected             the append itself is malformed (empty, too large, …)
    ├── LogUnavailable             the log cannot be written or read now: try again later
    │   ├── HalfCopied             it is being copied from another store: let that end first
    │   ├── LogWentBack            it has lost what this process knows of it: open it anew
    │   └── QueueFull              too many appends are waiting: try again after `retry_after`
    ├── OutcomeUnknown             the connection was lost during COMMIT and could not be settled
    ├── CursorMismatch             the log under a cursor is not the one that it was taken from
    ├── CutInsideAppend            a moment between two events that were written together
    ├── NotYet                     a moment that the log has not passed yet
    ├── UnknownEventType           written by a newer release: treat the stream as read-only
    ├── CorruptEvent               the stored bytes do not decode as their type says
    ├── KeyringError
    │   ├── KeyMissing             a key is absent though nobody was forgotten: an alert
    │   ├── KeyExpired             the key was destroyed on purpose, by age: its texts are gone
    │   ├── Forgotten              the person was forgotten: a tombstone says so
    │   ├── CannotUnseal           ciphertext, key or associated data do not belong together
    │   └── KeyEncryptionKeyError  absent, malformed, exposed, or not this keyring's
    ├── CopyFailed                 a log cannot be copied there, or from there, as things are
    │   └── CopyDiffers            a copy is not what it was copied from
    └── StoreLocked                another server owns this data directory
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from eventstore.types import Epoch, Head, Position, StreamName, Version

_MAX_POSITION: Final = 10**12  # a larger number can only be an instant, in µs


class EventStoreError(Exception):
    """Base of every error that the log raises on purpose."""


class Conflict(EventStoreError):
    """The stream is not at the version that the caller expected."""

    def __init__(self, stream: StreamName, expected: Version, actual: Version) -> None:
        self.stream = stream
        self.expected = expected
        self.actual = actual
        super().__init__(
            f"{stream} is at version {actual}, not {expected}: fast-forward and decide again"
        )


class DuplicateKey(EventStoreError):
    """An idempotency key of the append is in the log already. Durable when raised."""

    def __init__(self, key: bytes) -> None:
        self.key = key
        super().__init__(f"key {key.hex()} is in the log already: nothing was appended")


class EpochMismatch(EventStoreError):
    """The log was restored (or replaced) since the caller read it."""

    def __init__(self, expected: Epoch, actual: Epoch) -> None:
        self.expected = expected
        self.actual = actual
        super().__init__(
            f"the log is in epoch {actual}, the caller in {expected}: "
            "reload everything and decide again"
        )


class AppendRejected(EventStoreError):
    """The append is malformed; sending it again will not help."""


class LogUnavailable(EventStoreError):
    """The log cannot be reached or written now. Nothing was appended; try again later."""


class HalfCopied(LogUnavailable):
    """The log is a copy in the making: it is not complete, or was not compared yet."""

    def __init__(self, place: str) -> None:
        super().__init__(
            f"the log in {place} is half copied: run hilo migrate-store again, which goes on where "
            "it stopped"
        )


class LogWentBack(LogUnavailable):
    """What this process has read or appended is not in the log any more; it takes no appends here.

    Whoever drops all that rests on it, and opens the log anew, goes on with what there is.
    """

    def __init__(self, position: Position) -> None:
        self.position = position
        super().__init__(
            f"the log went back behind position {position}, which was there before (a failover to "
            "a standby that lagged, or a restored backup?): nothing is appended on what is lost. "
            "Make sure that this is the right server"
        )


class QueueFull(LogUnavailable):
    """Too many appends are waiting for the disk. `retry_after` is in seconds."""

    def __init__(self, waiting: int, retry_after: int = 1) -> None:
        self.waiting = waiting
        self.retry_after = retry_after
        super().__init__(f"{waiting} appends are waiting already: try again in {retry_after} s")


class OutcomeUnknown(EventStoreError):
    """A COMMIT was interrupted and the log could not be asked for its append id."""


class CursorMismatch(EventStoreError):
    """The log no longer holds the event that a cursor was taken at: rebuild from the start."""

    def __init__(self, position: Position, reason: str) -> None:
        self.position = position
        super().__init__(f"the log under the cursor at {position} has changed ({reason}): rebuild")


class CutInsideAppend(EventStoreError):
    """A position between two events of one append, which are never separated."""

    def __init__(self, position: Position, first: Position, last: Position) -> None:
        self.position = position
        self.before = first - 1
        self.after = last
        super().__init__(
            f"{position} is inside an append: the events {first} to {last} were written "
            f"together and stay together. Give {first - 1} or {last}"
        )


class NotYet(EventStoreError):
    """A moment that is not in the log's past yet: what is true then may still change."""

    def __init__(self, moment: int, head: Head) -> None:
        self.moment = moment
        self.head = head
        if moment <= _MAX_POSITION:
            says = f"the log ends at position {head.position}, before {moment}"
        else:
            newest = datetime.fromtimestamp(head.recorded_at / 1e6, UTC).isoformat()
            says = f"the newest event of the log is of {newest}, before that time"
        super().__init__(
            f"{says}: what is true then can still change. Ask about something earlier, or again "
            "when the log has gone on"
        )


class UnknownEventType(EventStoreError):
    """The event was written by a newer release. Its stream is read-only to this one."""

    def __init__(self, stored_type: str) -> None:
        self.stored_type = stored_type
        super().__init__(
            f"event type {stored_type!r} is newer than this release: upgrade this node"
        )


class CorruptEvent(EventStoreError):
    """Stored bytes do not decode as their type says."""

    def __init__(self, stored_type: str, reason: str) -> None:
        self.stored_type = stored_type
        super().__init__(f"cannot decode an event of type {stored_type!r}: {reason}")


class KeyringError(EventStoreError):
    """Base of what can go wrong with keys and sealed texts."""


class KeyMissing(KeyringError):
    """A key is absent although nobody was forgotten. Critical: restore the keyring's backup."""

    def __init__(self, owner: str, generation: int) -> None:
        self.owner = owner
        self.generation = generation
        super().__init__(
            f"the key of {owner}, generation {generation}, is missing and no tombstone explains "
            "it: restore keys.db from its backup"
        )


class KeyExpired(KeyringError):
    """The key was destroyed at the end of its time: what it sealed can never be opened again."""

    def __init__(self, owner: str, generation: int) -> None:
        self.owner = owner
        self.generation = generation
        super().__init__(
            f"the key of {owner}, generation {generation}, has expired and was destroyed: what it "
            "sealed is gone for good, as intended"
        )


class Forgotten(KeyringError):
    """The person was forgotten: what was sealed for them can never be opened again."""

    def __init__(self, owner: str) -> None:
        self.owner = owner
        super().__init__(f"{owner} was forgotten: what was sealed for them is gone for good")


class CannotUnseal(KeyringError):
    """Ciphertext, key and associated data (stream, field, generation) do not belong together."""


class KeyEncryptionKeyError(KeyringError):
    """The key-encryption key is absent, malformed, exposed, or not this keyring's."""


class CopyFailed(EventStoreError):
    """A log cannot be copied: the target is not empty, or the source is damaged or in use."""


class CopyDiffers(CopyFailed):
    """A copy is not what it was copied from."""


class StoreLocked(EventStoreError):
    """Another process serves this data directory."""

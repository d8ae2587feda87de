"""What a keyring keeps in memory, and for how long it may believe it.

Another process, on this machine or another, may destroy a key or a person at any time. Memory is
believed for a minute; then the store is asked for its number of destructions, and if that has
changed all is dropped and read again when it is wanted. So nothing that was destroyed is usable
for longer than that, anywhere, and believing costs one small read a minute.
"""

from __future__ import annotations

from typing import Final

from eventstore.handles import Handle
from eventstore.recent import Recent
from eventstore.types import Clock

BELIEVED: Final = 60_000_000
"""µs for which memory is used without asking the store."""

MARGIN: Final = 5_000_000
"""µs for which memory must still be believed when the hot path is told that it need not wait."""

_NEVER_ASKED: Final = -1


class Memory:
    """Identities and keys used lately. Safe on any thread; `confirm` under the keyring's lock."""

    def __init__(self, *, identities: int, keys: int, monotonic: Clock) -> None:
        """Keep at most so many of each. `monotonic` never goes back."""
        self.identities: Recent[Handle, str] = Recent(identities)
        self.keys: Recent[tuple[str, int], bytes] = Recent(keys)
        """The keys themselves: a cipher takes 2.5 KB, and making one 0.8 µs."""
        self._monotonic = monotonic
        self._believed_until = 0
        self._destructions = _NEVER_ASKED

    def believed(self) -> bool:
        """Tell whether memory may be used without asking the store; no I/O."""
        return self._monotonic() < self._believed_until

    def fresh(self) -> bool:
        """Tell whether it may, and a while from now, too: what begins now need not wait later."""
        return self._monotonic() < self._believed_until - MARGIN

    def confirm(self, destructions: int) -> None:
        """Take note of the store's number of destructions, read just now."""
        asked_at = self._monotonic()
        if destructions != self._destructions:
            self.identities.drop(_all)
            self.keys.drop(_all)
        self._destructions = destructions
        self._believed_until = asked_at + BELIEVED

    def evict(self, owner: str) -> None:
        """Drop all that is known of `owner`."""
        self.identities.drop(lambda _, pseudonym: pseudonym == owner)
        self.keys.drop(lambda key, _: key[0] == owner)


def _all(_key: object, _value: object) -> bool:
    return True

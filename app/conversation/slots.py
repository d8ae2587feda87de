"""Runs at once on a node, shared out among its bots: nobody starves, nothing lies idle.

A free slot goes to the waiting bot that holds the fewest, ties to the one that was served longest
ago (max-min fairness). So a bot that waits and holds less than its equal share of the slots gets
the next one that anybody frees; what the others leave idle it may borrow beyond its share, and what
it borrowed is not taken away from a run: it is given back as its runs end, to whoever has fewer.
A bot that begins to wait while all slots are lent out has its whole share after the time of one
turn at the latest.
"""

from __future__ import annotations

from collections.abc import Callable


class Slots:
    """So many slots, and those who share them. Belongs to one event loop."""

    def __init__(self, total: int) -> None:
        """Nobody shares them yet. Raises ValueError unless there is at least one."""
        if total < 1:
            msg = f"runs at once: {total} is too few"
            raise ValueError(msg)
        self.total = total
        self._taken = 0
        self._served = 0
        self._shares: list[Share] = []

    @property
    def taken(self) -> int:
        """How many slots are in use."""
        return self._taken

    def share(self, *, most: int | None = None) -> Share:
        """Add a bot, which never holds more than `most` of them."""
        share = Share(self, self.total if most is None else min(most, self.total))
        self._shares.append(share)
        return share

    def _take(self, asking: Share) -> bool:
        if self._taken == self.total or self._next() is not asking:
            return False
        self._taken += 1
        self._served += 1
        asking.running += 1
        asking.served = self._served
        return True

    def _give_back(self, share: Share) -> None:
        self._taken -= 1
        share.running -= 1
        self._offer()

    def _leave(self, share: Share) -> None:
        self._taken -= share.running
        self._shares.remove(share)
        self._offer()

    def _offer(self) -> None:
        """Wake whose turn it is, if there is a slot to be had."""
        first = self._next() if self._taken < self.total else None
        if first is not None:
            first.wake()

    def _next(self) -> Share | None:
        """Return whose turn it is."""
        waiting = [s for s in self._shares if s.waits and s.running < s.most]
        return min(waiting, key=lambda s: (s.running, s.served), default=None)


class Share:
    """One bot's part of the slots."""

    def __init__(self, slots: Slots, most: int) -> None:
        self.most = most
        self.running = 0
        self.served = 0
        """When it got its last slot, counted in slots."""
        self.waits = False
        self.wake: Callable[[], None] = _nobody
        """Called when a slot may be had: `take` it, or `rest`."""
        self.slots = slots

    def take(self) -> bool:
        """Take a slot if there is one and it is this bot's turn; else wait, and be woken."""
        self.waits = True
        taken = self.slots._take(self)  # noqa: SLF001 - two halves of one thing
        if not taken:
            self.slots._offer()  # noqa: SLF001
        return taken

    def rest(self) -> None:
        """Want no further slot: the next in turn may have it."""
        if self.waits:
            self.waits = False
            self.slots._offer()  # noqa: SLF001

    def give_back(self) -> None:
        """Return one slot: a run has ended."""
        self.slots._give_back(self)  # noqa: SLF001

    def leave(self) -> None:
        """Return everything and share no more."""
        self.slots._leave(self)  # noqa: SLF001


def _nobody() -> None:
    """Wake nobody."""

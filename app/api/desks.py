"""Whose webhook it is: the bots behind one door, and the secrets that open each of them.

A webhook is for the bot that its path names (`/webhooks/<bot>/whapi`), or for the one whose channel
its envelope names. A secret that is good for one bot opens no other. Which bots a header opens is
known before the body is read, as a set of bits; which bot it is for, only after it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from hmac import compare_digest
from typing import Protocol

import msgspec

from app.conversation.facts import Delivery, Odd


class Take(Protocol):
    """A bot's receiver."""

    async def __call__(self, delivery: Delivery, /) -> Odd:
        """Return when every fact is durable, and tell which of them were odd.

        Raises `LogUnavailable` or `QueueFull` if they are not durable.
        """


class TakeAtOnce(Protocol):
    """What a receiver may have as its `at_once`: a way without a task, for most webhooks."""

    def __call__(self, delivery: Delivery, done: Callable[[bool], None], /) -> bool:
        """Tell whether the delivery was taken; `done(True)` will tell that it is durable.

        After False, from either, nothing has been promised: await `Take`, which tells why.
        """


class Seat(Protocol):
    """A bot behind the door. What `take` gives may change while it is open."""

    @property
    def bot(self) -> str:
        """The bot's name, as paths give it."""

    @property
    def channel(self) -> str:
        """Its channel. Empty: found by path; if it is the only bot, whatever the channel."""

    @property
    def secrets(self) -> tuple[str, ...]:
        """The values that are good; during a rotation several. Empty: no secret is asked for."""

    @property
    def take(self) -> Take:
        """Its receiver now."""


class Desk(msgspec.Struct, frozen=True):
    """A seat that never changes."""

    take: Take
    bot: str = "default"
    channel: str = ""
    secrets: tuple[str, ...] = ()

    def __repr__(self) -> str:
        return f"Desk(bot={self.bot!r}, channel={self.channel!r}, <{len(self.secrets)} hidden>)"


class WrongSecret(Exception):
    """The webhook is for a bot that its secret does not open."""


class Desks:
    """Every bot of this server, found by path or by channel."""

    def __init__(self, seats: Sequence[Seat], *, header: str, loopback: bool = False) -> None:
        """Take the bots and the name of the header that carries their secrets.

        Raises ValueError if a secret is missing though others than this machine may come, is
        empty, or opens two bots, or if two bots have one name or channel.
        """
        _refuse_what_is_shared(seats)
        for seat in seats:
            if not seat.secrets and not loopback:
                msg = (
                    f"webhooks of the bot {seat.bot!r} need a shared secret unless the server is "
                    "bound to loopback: set one"
                )
                raise ValueError(msg)
            if seat.secrets and not (header and all(seat.secrets)):
                msg = "a webhook secret needs a header and a value that is not empty"
                raise ValueError(msg)
        numbered = [(1 << number, seat) for number, seat in enumerate(seats)]
        self.header = header.lower().encode("latin-1") if any(s.secrets for s in seats) else b""
        """Name of the header that is looked at; empty if no secret is asked for."""
        self.open = sum(bit for bit, seat in numbered if not seat.secrets)
        """The bots that anybody may write to."""
        self._secrets = [(value.encode(), bit) for bit, seat in numbered for value in seat.secrets]
        self._numbered = numbered
        self._by_bot = {seat.bot: (bit, seat) for bit, seat in numbered}
        self._by_channel = {s.channel: (bit, s) for bit, s in numbered if s.channel}
        self._only = numbered[0] if len(numbered) == 1 else None

    def opened_by(self, value: bytes) -> int:
        """Return the bots that a header's value opens. Compared as bytes, in constant time."""
        opened = 0
        for good, bit in self._secrets:
            if compare_digest(value, good):
                opened |= bit
        return opened

    def only(self, bot: str, opened: int) -> int:
        """Return what is open of the bot that a path names: itself, or nothing."""
        bit, _ = self._by_bot.get(bot, (0, None))
        return opened & bit

    def take_for(self, channel: str, opened: int, bot: str = "") -> Take | None:
        """Return the receiver of a webhook's bot; None where no bot serves its channel.

        `channel` is empty where the envelope names none, `bot` where the path does. Raises
        `WrongSecret` if there is such a bot and it is not among the `opened` ones.
        """
        bit, seat = self._find(channel, opened, bot)
        if seat is None:
            return None
        if not opened & bit:
            raise WrongSecret
        return seat.take

    def _find(self, channel: str, opened: int, bot: str) -> tuple[int, Seat | None]:
        named = self._by_bot.get(bot) if bot else self._only
        if named is not None:
            own = named[1].channel
            return named if not own or channel in {"", own} else (0, None)
        if bot:
            return 0, None
        if channel:
            return self._by_channel.get(channel, (0, None))
        meant = [numbered for numbered in self._numbered if opened & numbered[0]]
        return meant[0] if len(meant) == 1 else (0, None)


def _refuse_what_is_shared(seats: Iterable[Seat]) -> None:
    bots: set[str] = set()
    channels: dict[str, str] = {}
    secrets: dict[str, str] = {}
    for seat in seats:
        if seat.bot in bots:
            msg = f"two bots are called {seat.bot!r}"
            raise ValueError(msg)
        bots.add(seat.bot)
        if seat.channel and (other := channels.setdefault(seat.channel, seat.bot)) != seat.bot:
            msg = f"the bots {other!r} and {seat.bot!r} have the same channel: give each its own"
            raise ValueError(msg)
        for value in seat.secrets:
            if (other := secrets.setdefault(value, seat.bot)) != seat.bot:
                msg = (
                    f"the bots {other!r} and {seat.bot!r} have the same webhook secret: give each "
                    "its own, or who may write to one may write to the other"
                )
                raise ValueError(msg)

"""Which events of one stream belong together: causal chains, by correlation and causation.

A turn is one chain, named like its first run: the messages that the run claimed, further runs for
them, tokens, reply, sends with their echoes and statuses, and the parking that ends it. A clean-up
is the chain of its run. Everything else begins a chain of its own, `v<version>`, and what follows
from it joins. A chain may turn out to be part of another one later: `chain_of` knows in the end.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from app.aggregates import events as e
from eventstore.codec import Event

_ABOUT_A_MESSAGE: Final = (
    e.MessageEdited,
    e.MessageDeleted,
    e.MessageEchoed,
    e.MessageStatusChanged,
)


class Weaver:
    """Takes the events of a stream in order, and then knows each one's chain."""

    def __init__(self) -> None:
        """Begin with an empty stream."""
        self._chains: dict[int, str] = {}
        self._joined: dict[str, str] = {}
        self._refs: dict[bytes, int] = {}
        self._waiting: list[int] = []
        self._claimed: list[int] = []
        self._turn = ""
        self._running = False
        self._parked = ""

    def take(self, version: int, event: Event | None) -> int | None:
        """Take the next event (None: nobody can read it); return the version that caused it."""
        chain, cause = f"v{version}", None
        if event is not None:
            cause = event.cau if event.cau is not None else self._message_of(event)
            chain = self._chain(version, event, cause)
            change = _CHANGES.get(type(event))
            if change is not None:
                change(self, version, event)
        self._chains.setdefault(version, chain)
        return cause

    def chain_of(self, version: int) -> str:
        """Return the chain of an event that was taken."""
        chain = self._chains[version]
        while chain in self._joined:
            chain = self._joined[chain]
        return chain

    def _chain(self, version: int, event: Event, cause: int | None) -> str:
        if event.cor is not None:
            return event.cor
        if cause in self._chains:
            return self._chains[cause]
        if self._running and isinstance(event, (e.ThreadStarted, e.ThreadReset)):
            return self._turn
        if self._waiting and isinstance(event, e.TypingObserved):
            return self._chains[self._waiting[-1]]
        return f"v{version}"

    def _message_of(self, event: Event) -> int | None:
        return self._refs.get(event.ref) if isinstance(event, _ABOUT_A_MESSAGE) else None

    def _join(self, chain: str, whole: str) -> None:
        while chain in self._joined:
            chain = self._joined[chain]
        while whole in self._joined:
            whole = self._joined[whole]
        if chain != whole:
            self._joined[chain] = whole

    # -- what an event changes -------------------------------------------------------------------

    def _received(self, version: int, event: e.MessageReceived) -> None:
        early = self._refs.get(event.ref)
        self._chains[version] = f"v{version}" if early is None else self._chains[early]
        self._refs[event.ref] = version
        if event.answerable:
            self._waiting.append(version)

    def _shown(self, version: int, event: e.HumanMessageSent | e.MessageSent) -> None:
        self._refs[event.ref] = version

    def _about(self, version: int, event: e.MessageEdited) -> None:
        self._refs.setdefault(event.ref, version)  # it came before its message

    def _deleted(self, version: int, event: e.MessageDeleted) -> None:
        message = self._refs.setdefault(event.ref, version)
        self._waiting = [v for v in self._waiting if v != message]
        self._claimed = [v for v in self._claimed if v != message]

    def _started(self, version: int, event: e.RunStarted) -> None:
        if not self._claimed:
            self._turn = event.run
        self._join(event.run, self._turn)
        self._chains[version] = event.run
        for message in self._waiting:
            self._join(self._chains[message], self._turn)
        self._claimed += self._waiting
        self._waiting = []
        self._running = True

    def _ended(self, _: int, event: Event) -> None:
        self._running = False
        if isinstance(event, e.RunCompleted):
            self._claimed = []

    def _gave_up(self, version: int, event: e.TurnParked) -> None:
        turn = self._turn or f"v{version}"
        self._chains[version] = turn
        if event.run:  # the apology's
            self._join(event.run, turn)
        self._parked, self._claimed, self._running = turn, [], False

    def _reopened(self, version: int, _: e.TurnRetried) -> None:
        if self._parked:
            self._chains[version] = self._turn = self._parked
            self._claimed = [version]  # the next run goes on with the same turn
            self._parked = ""

    def _dropped(self, version: int, _: e.TurnDropped) -> None:
        if self._parked:
            self._chains[version] = self._parked
            self._parked = ""


_CHANGES: Final[dict[type[Event], Callable[[Weaver, int, Any], None]]] = {
    e.MessageReceived: Weaver._received,  # noqa: SLF001 - a table of its own methods
    e.MessageEdited: Weaver._about,  # noqa: SLF001
    e.MessageDeleted: Weaver._deleted,  # noqa: SLF001
    e.HumanMessageSent: Weaver._shown,  # noqa: SLF001
    e.MessageSent: Weaver._shown,  # noqa: SLF001
    e.RunStarted: Weaver._started,  # noqa: SLF001
    e.RunCompleted: Weaver._ended,  # noqa: SLF001
    e.RunFailed: Weaver._ended,  # noqa: SLF001
    e.RunCancelled: Weaver._ended,  # noqa: SLF001
    e.TurnParked: Weaver._gave_up,  # noqa: SLF001
    e.TurnRetried: Weaver._reopened,  # noqa: SLF001
    e.TurnDropped: Weaver._dropped,  # noqa: SLF001
}

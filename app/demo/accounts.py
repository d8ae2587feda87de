"""What each side says happened: the phones, OpenAI's account, and the log's own ledger."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

import msgspec

from app.aggregates.events import (
    USER_EVENTS,
    DeliveryUncertain,
    MessageSent,
    RunCancelled,
    RunCompleted,
    RunStarted,
    TokensIncremented,
    TurnParked,
    TurnTakenOver,
    UsageUnknown,
)
from eventstore.codec import Codec, Event
from eventstore.types import Recorded

_CODEC: Final = Codec(USER_EVENTS)
_READ: Final = frozenset(
    _CODEC.stored_names(
        (
            DeliveryUncertain,
            MessageSent,
            RunCancelled,
            RunCompleted,
            RunStarted,
            TokensIncremented,
            TurnParked,
            TurnTakenOver,
            UsageUnknown,
        )
    )
)
ANSWERED: Final = frozenset({"completed", "incomplete"})


class Usage(msgspec.Struct, frozen=True, omit_defaults=True):
    """Tokens of one or more responses."""

    total_tokens: int = 0
    input_tokens: int = 0
    output_tokens: int = 0

    def plus(self, other: Usage) -> Usage:
        """Return the sum."""
        return Usage(
            self.total_tokens + other.total_tokens,
            self.input_tokens + other.input_tokens,
            self.output_tokens + other.output_tokens,
        )


class Response(msgspec.Struct, frozen=True):
    """A line of OpenAI's account: a response, what went in, what was billed."""

    id: str
    status: str
    input_texts: tuple[str, ...]
    usage: Usage | None = None
    metadata: dict[str, str] = {}

    @property
    def run(self) -> str:
        """The bot's own id of the attempt."""
        return self.metadata.get("run", "")


class OpenAIAccount(msgspec.Struct, frozen=True):
    """What OpenAI says it did: `GET /_sim/account` of its simulator."""

    responses: tuple[Response, ...]
    reported: Usage
    active: int = 0


class Shown(msgspec.Struct, frozen=True):
    """A message of the bot as a phone shows it."""

    id: str
    body: str


class Webhooks(msgspec.Struct, frozen=True):
    """How the gateway's deliveries fared."""

    queued: int = 0
    delivered: int = 0
    refused: int = 0
    unreachable: int = 0
    dropped: int = 0
    pending: int = 0


class WhapiAccount(msgspec.Struct, frozen=True):
    """What the phones show, and how the webhooks fared: the Whapi simulator's account."""

    chats: dict[str, tuple[Shown, ...]]
    sent: int = 0
    duplicates_sent: int = 0
    webhooks: Webhooks = Webhooks()

    def by_phone(self) -> dict[str, tuple[str, ...]]:
        """Return the texts that the bot sent, by phone number or by the id of a group."""
        return {
            chat.removesuffix("@s.whatsapp.net"): tuple(shown.body for shown in messages)
            for chat, messages in self.chats.items()
            if messages
        }


class Attempt(msgspec.Struct):
    """A run: whose it is, when it was claimed, when its answer was recorded (µs; 0: never)."""

    stream: str
    started_at: int
    completed_at: int = 0


class Ledger(msgspec.Struct):
    """What the log says, of those events that a judge of the demo asks for."""

    events: int = 0
    sent: int = 0
    recorded: dict[str, Usage] = {}
    """Usage by run; a run that is recorded twice has the sum, and so cannot be right."""
    unknown: set[str] = set()
    """Runs of which nobody knows what they used."""
    uncertain: dict[str, int] = {}
    """Parts of which nobody knows whether they were sent, by run."""
    parked: int = 0
    adopted: int = 0
    """Parts of which no answer came, and which were found at the gateway instead of sent again."""
    attempts: dict[str, Attempt] = {}
    """Every run by its id."""
    orphans: set[str] = set()
    """Runs that a dead process had left open and that were given up, to be tried again."""
    nodes: dict[str, str] = {}
    """The node of each incarnation that held a run."""
    takeovers: int = 0
    """Runs and deliveries of a dead node that another node went on with."""

    def take(self, recorded: Recorded) -> None:
        """Take one event in."""
        self.events += 1
        if recorded.type in _READ:
            self._enter(recorded, _CODEC.decode(recorded.type, recorded.state))

    def _enter(self, recorded: Recorded, event: Event) -> None:
        match event:
            case TokensIncremented():
                usage = Usage(event.total, event.input, event.output)
                self.recorded[event.run] = self.recorded.get(event.run, Usage()).plus(usage)
            case UsageUnknown():
                self.unknown.add(event.run)
            case DeliveryUncertain():
                self.uncertain[event.run] = self.uncertain.get(event.run, 0) + 1
            case RunStarted():
                self.attempts[event.run] = Attempt(recorded.stream, recorded.recorded_at)
                self.nodes[event.incarnation] = event.node
            case TurnTakenOver():
                self.nodes[event.incarnation] = event.node
                self.takeovers += self.nodes.get(event.before) != event.node
            case RunCompleted() if event.run in self.attempts:
                self.attempts[event.run].completed_at = recorded.recorded_at
            case RunCancelled(reason="orphaned"):
                self.orphans.add(event.run)
            case MessageSent():
                self.sent += 1
                self.adopted += bool(event.adopted)
            case TurnParked():
                self.parked += 1
            case _:
                pass

    def resumed(self, killed_at: int) -> int:
        """Return how many runs were open at the kill and got their answer all the same."""
        return sum(run.started_at <= killed_at < run.completed_at for run in self.attempts.values())

    @property
    def tokens(self) -> int:
        """The sum of everything recorded."""
        return sum(usage.total_tokens for usage in self.recorded.values())


def ledger_of(events: Iterable[Recorded]) -> Ledger:
    """Read the whole log."""
    ledger = Ledger()
    for event in events:
        ledger.take(event)
    return ledger

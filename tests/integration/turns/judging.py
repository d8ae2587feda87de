"""The judge: looks at the phones, at OpenAI's account and at the log, and at nothing in between.

Every text that a test sends carries a token that occurs nowhere else, and the simulated model
repeats what it was told: so a message can be followed to its answer from outside.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Literal

import msgspec

from app.aggregates import events as e
from app.aggregates.user_state import BLANK, UserState, evolve
from app.conversation.kinds import CODEC
from eventstore.codec import Codec, Event
from eventstore.store import LogReader
from eventstore.types import Recorded

TOKEN = re.compile(r"tok-[a-z]{8}")
Expect = Literal["answer", "silence", "maybe"]


class Asked(msgspec.Struct, frozen=True):
    """A message that a test sent: from which phone, and what is expected."""

    phone: str
    expect: Expect = "answer"


class Usage(msgspec.Struct, frozen=True):
    """What one response cost."""

    input_tokens: int
    output_tokens: int
    total_tokens: int


class Response(msgspec.Struct, frozen=True):
    """One line of OpenAI's own account."""

    id: str
    status: str
    metadata: dict[str, str]
    input_texts: list[str]
    usage: Usage | None
    conversation: str | None
    background: bool

    @property
    def run(self) -> str:
        """The run that asked for it."""
        return self.metadata.get("run", "")


class OpenAIAccount(msgspec.Struct, frozen=True):
    """Every response there ever was."""

    responses: list[Response]
    reported: dict[str, int]
    conversations: int


class Shown(msgspec.Struct, frozen=True):
    """A message of the bot on a phone."""

    id: str
    body: str
    received_at: float


class WhapiAccount(msgspec.Struct, frozen=True):
    """What the bot sent to whom, and how the webhooks fared."""

    chats: dict[str, list[Shown]]
    sent: int
    webhooks: dict[str, int]

    def bodies(self, phone: str) -> list[str]:
        """What the bot wrote to a phone, oldest first."""
        return [shown.body for shown in self.chats.get(f"{phone}@s.whatsapp.net", [])]


class Told(msgspec.Struct, frozen=True):
    """An event of the log, and where it stands there."""

    stream: str
    version: int
    position: int
    at: int
    event: Event


class Story(msgspec.Struct, frozen=True):
    """The whole log, read from its start."""

    recorded: Sequence[Recorded]
    told: Sequence[Told]
    states: dict[str, UserState]

    @classmethod
    def of(cls, log: LogReader, newer: Sequence[type[Event]] = ()) -> Story:
        """Read it. `newer`: classes of a later release, which change no state that we know."""
        codec = Codec((*CODEC.classes, *newer)) if newer else CODEC
        recorded = log.read(limit=1_000_000)
        told: list[Told] = []
        states: dict[str, UserState] = {}
        for row in recorded:
            event = codec.decode(row.type, row.state)
            told.append(Told(row.stream, row.version, row.position, row.recorded_at, event))
            if row.stream.startswith("user/") and not isinstance(event, tuple(newer)):
                before = states.get(row.stream, BLANK)
                states[row.stream] = evolve(before, event, row.version, row.recorded_at)
        return cls(recorded, told, states)

    def all(self, *kinds: type[Event]) -> list[Told]:
        """Return the events of these kinds, oldest first."""
        return [told for told in self.told if isinstance(told.event, kinds)]

    def count(self, *kinds: type[Event]) -> int:
        """Return how many events of these kinds there are."""
        return len(self.all(*kinds))


class Evidence(msgspec.Struct, frozen=True):
    """What the judge looks at."""

    asked: dict[str, Asked]
    openai: OpenAIAccount
    whapi: WhapiAccount
    story: Story


def faults(evidence: Evidence) -> list[str]:
    """Return every promise that was broken, in words."""
    return [
        *unanswered(evidence),
        *disorder(evidence.story),
        *wrong_bills(evidence.openai, evidence.story),
        *unexplained_sends(evidence.whapi, evidence.story),
        *open_work(evidence.story),
        *unacknowledged(evidence.whapi),
    ]


def unanswered(evidence: Evidence) -> Iterator[str]:
    """Yield messages that are lost, answered twice, or answered although they were not to be."""
    shown = Counter(
        (chat.partition("@")[0], token)
        for chat, messages in evidence.whapi.chats.items()
        for message in messages
        for token in TOKEN.findall(message.body)
    )
    for (phone, token), count in shown.items():
        asked = evidence.asked.get(token)
        if asked is None or asked.phone != phone:
            yield f"{phone} reads {token}, which is not theirs"
        elif count > 1:
            yield f"{token} of {phone} was answered {count} times"
        elif asked.expect == "silence":
            yield f"{token} of {phone} was answered"
    for token, asked in evidence.asked.items():
        if asked.expect == "answer" and not shown[asked.phone, token]:
            yield f"{token} of {asked.phone} is lost"


def disorder(story: Story) -> Iterator[str]:
    """Yield gaps in positions or versions, and appends that were torn apart."""
    versions: Counter[str] = Counter()
    for expected, row in enumerate(story.recorded, start=1):
        versions[row.stream] += 1
        if row.position != expected:
            yield f"position {row.position} is where {expected} should be"
        if row.version != versions[row.stream]:
            yield f"{row.stream} has version {row.version} for {versions[row.stream]}"
    pairs = zip(story.recorded, story.recorded[1:], strict=False)
    for before, after in pairs:
        same = before.append_id == after.append_id
        if same != (before.recorded_at == after.recorded_at):
            yield f"times around position {after.position} do not tell appends apart"


def wrong_bills(openai: OpenAIAccount, story: Story) -> Iterator[str]:
    """Yield runs whose tokens in the log are not what OpenAI reported."""
    reported: Counter[str] = Counter()
    for response in openai.responses:
        if response.usage is not None:
            reported[response.run] += response.usage.total_tokens
    told = [one.event for one in story.all(e.TokensIncremented, e.UsageUnknown)]
    bills = [event for event in told if isinstance(event, e.TokensIncremented)]
    recorded = {bill.run: bill.total for bill in bills}
    unknown = {event.run for event in told if isinstance(event, e.UsageUnknown)}
    if len(recorded) != len(bills) or len(recorded) + len(unknown) != len(told):
        yield "a run was billed twice"
    yield from (f"{bill.run} adds up wrongly" for bill in bills if bill.total != _sum(bill))
    yield from (f"{run} is recorded and unknown" for run in unknown & recorded.keys())
    for run in (reported.keys() | recorded.keys()) - unknown:
        if recorded.get(run) != reported.get(run):
            yield f"{run}: recorded {recorded.get(run)}, reported {reported.get(run)}"
    all_of_it = sum(recorded.values()) + sum(reported[run] for run in unknown)
    if all_of_it != openai.reported["total_tokens"]:
        yield f"recorded and unknown tokens are {all_of_it}, OpenAI reports {openai.reported}"


def _sum(bill: e.TokensIncremented) -> int:
    return bill.input + bill.output


def unexplained_sends(whapi: WhapiAccount, story: Story) -> Iterator[str]:
    """Yield sends that the log does not know, and the other way round."""
    recorded, uncertain = story.count(e.MessageSent), story.count(e.DeliveryUncertain)
    if not recorded <= whapi.sent <= recorded + uncertain:
        yield f"{whapi.sent} messages were sent; recorded {recorded}, uncertain {uncertain}"
    parts = Counter(
        (told.event.run, told.event.part)
        for told in story.all(e.MessageSent, e.DeliveryUncertain)
        if isinstance(told.event, e.MessageSent | e.DeliveryUncertain)
    )
    yield from (f"part {part} of {run} ended twice" for (run, part), n in parts.items() if n > 1)


def open_work(story: Story) -> Iterator[str]:
    """Yield what the log leaves to be done."""
    for stream, state in story.states.items():
        if state.run is not None:
            yield f"{stream}: {state.run.id} is open"
        if state.delivery is not None:
            yield f"{stream}: part {state.delivery.next_part} is not delivered"
        if state.pending:
            yield f"{stream}: {len(state.pending)} messages wait"


def unacknowledged(whapi: WhapiAccount) -> Iterator[str]:
    """Yield webhooks that were never answered with 200."""
    if whapi.webhooks["pending"] or whapi.webhooks["dropped"]:
        yield f"{whapi.webhooks} were not all acknowledged"

"""The `eventsourcing` library as its documentation shows it: an application, an aggregate, `save`.

Its aggregate cache is on, it writes to a SQLite file in WAL mode with SQLite's default
`synchronous=FULL`, or to PostgreSQL with its defaults, and saves once a turn. Texts come in sealed
by the same sealer as ours, as text (its default transcoder is JSON): its own cipher encrypts all
five states of a turn and is slower. Calls are made by as many threads as it is fastest with: its
writers exclude each other, so that is one on SQLite and four on PostgreSQL; 64 get less done.
"""

# ruff: noqa: ARG002 - arguments of a decorated method become fields of its event
from __future__ import annotations

from base64 import b64encode
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final
from uuid import UUID

from eventsourcing.application import Application
from eventsourcing.domain import Aggregate, event
from eventsourcing.persistence import StoredEvent

from bench.people import Exchange, Person, TurnMaker
from eventstore.sealing import Sealed

CACHE: Final = 2000
ROWS_A_COMMIT: Final = 2500
FEW_ROWS_A_COMMIT: Final = 200
"""Longer pipelines of its PostgreSQL recorder never come to an end."""


class Conversation(Aggregate):
    """The same five events, by the library's decorators."""

    def __init__(self, phone_hash: str) -> None:
        self.phone_hash = phone_hash
        self.waiting: str | None = None
        self.run = ""
        self.response = ""
        self.reply = ""
        self.tokens = 0

    @event("MessageReceived")
    def receive_message(self, ref: str, kind: str, content: str, at: int) -> None:
        """A person wrote."""
        self.waiting = ref

    @event("RunStarted")
    def start_run(self, run: str, node: str, incarnation: str, attempt: int, up_to: int) -> None:
        """A turn is claimed."""
        self.run = run

    @event("RunSubmitted")
    def submit_run(self, run: str, response: str, thread: str) -> None:
        """The provider named its response."""
        self.response = response

    @event("RunCompleted")
    def complete_run(self, run: str, response: str, reply: str, parts: int, last_item: str) -> None:
        """The answer is here."""
        self.waiting = None
        self.reply = reply

    @event("TokensIncremented")
    def increment_tokens(  # noqa: PLR0913, PLR0917 - the same fields as ours
        self,
        thread: str,
        run: str,
        total: int,
        input_tokens: int,
        output_tokens: int,
        cached: int,
        model: str,
    ) -> None:
        """The provider reported usage."""
        self.tokens += total


class Conversations(Application[UUID]):
    """Records turns."""

    def begin(self, phone_hash: str) -> UUID:
        """A new conversation."""
        conversation = Conversation(phone_hash)
        self.save(conversation)
        return conversation.id

    def take_turn(self, conversation_id: UUID, exchange: Exchange) -> None:
        """Get the aggregate (from the cache), decide, save once."""
        conversation: Conversation = self.repository.get(conversation_id)
        _decide(conversation, exchange)
        self.save(conversation)


def _decide(conversation: Conversation, x: Exchange) -> None:
    conversation.receive_message(x.ref.hex(), "text", sealed_text(x.content), x.at)
    conversation.start_run(x.run, "bench", "1", 1, conversation.version)
    conversation.submit_run(x.run, x.response, x.thread)
    conversation.complete_run(x.run, x.response, sealed_text(x.reply), 0, x.last_item)
    conversation.increment_tokens(x.thread, x.run, 640, 560, 80, 512, "gpt-5-mini")


def sealed_text(sealed: Sealed[Any]) -> str:
    """Ciphertext and digest as JSON can carry them."""
    return b64encode(sealed.box + sealed.digest).decode("ascii")


def history_of(
    application: Conversations,
    people: Sequence[Person],
    maker: TurnMaker,
    events: int,
    *,
    rows_a_commit: int = ROWS_A_COMMIT,
) -> list[UUID]:
    """Give the people `events` events in bulk, through the library's mapper and recorder.

    Twenty a person, like ours: the library's `Created`, and turns. Returns their ids.
    """
    known = [Conversation(person.pseudonym) for person in people]
    to_stored = application.mapper.to_stored_event
    pending: list[StoredEvent] = []
    left = events
    while left > 0:
        for conversation, person in zip(known, people, strict=True):
            if left <= 0:
                break
            _decide(conversation, maker.exchange(person))
            fresh = [to_stored(event) for event in conversation.collect_events()]
            left -= len(fresh)
            pending += fresh
            if len(pending) >= rows_a_commit:
                application.recorder.insert_events(pending)
                pending = []
    application.recorder.insert_events(pending)
    return [conversation.id for conversation in known]


def on_sqlite(path: Path) -> Conversations:
    """The application over a SQLite file, with the cache that its documentation describes."""
    return _open({"PERSISTENCE_MODULE": "eventsourcing.sqlite", "SQLITE_DBNAME": str(path)})


def on_postgres(settings: Mapping[str, str]) -> Conversations:
    """The same over PostgreSQL; `settings` say where it is."""
    return _open({"PERSISTENCE_MODULE": "eventsourcing.postgres", **settings})


def _open(environment: dict[str, str]) -> Conversations:
    return Conversations(env=environment | {"AGGREGATE_CACHE_MAXSIZE": str(CACHE)})

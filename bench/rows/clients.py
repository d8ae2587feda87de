"""The client cache (M003): one look-up, a thousand users' messages, and how often memory knows."""

from __future__ import annotations

import asyncio
import random
import statistics
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Final

import uvloop

from app.caches import Expiring
from app.conversation.client_cache import CLIENT_SECONDS, CLIENTS, ClientCache, Kept
from app.conversation.crash import CrashPoints
from app.conversation.facts import Delivery, MessageFact
from app.conversation.facts import Person as Sender
from app.conversation.identities import Identities
from app.conversation.kinds import GATEWAYS, USERS
from app.conversation.receiving import Receiver
from app.conversation.repository import Repository
from app.projections import Views, rebuild
from app.projections.client_view import CLIENT_VIEW
from bench.measuring import Row, collecting_as_served, limit
from bench.people import CHANNEL, Person, open_keyring
from bench.plan import Plan
from eventstore.sealing import Sealer
from eventstore.sqlite import SQLiteLog
from eventstore.types import StreamName
from eventstore.writer import Writer

LOOKUPS: Final = 20_000
MESSAGES_EACH: Final = 20
"""The first of so many finds nothing in memory, the others do: M003's 95 %."""

_MICRO: Final = 1e6


class Desk:
    """What takes a webhook's message and knows the client: as `hilo serve` has it."""

    def __init__(self, plan: Plan, readers: ThreadPoolExecutor) -> None:
        data = plan.sets.copy(plan.sets.empty)
        self.people = data.people[:CLIENTS]
        self.log = SQLiteLog(data.directory / "log.db", server=True)
        self.keyring = open_keyring(data.directory)
        self.writer = Writer(self.log)
        self.views = Views(data.directory / "views.db")
        self.identities = Identities(self.keyring)
        self.users = Repository(USERS, log=self.log, writer=self.writer, readers=readers)
        self._readers = readers
        self._numbers = iter(range(1_000_000_000))
        self.receiver = Receiver(
            users=self.users,
            gateway=Repository(GATEWAYS, log=self.log, writer=self.writer, readers=readers),
            identities=self.identities,
            keyring=self.keyring,
            sealer=Sealer(self.keyring),
            log=self.log,
            readers=readers,
            crash=CrashPoints(),
            channel=CHANNEL,
        )
        self.empty_memory()

    def empty_memory(self) -> None:
        """Know no client any more."""
        self.kept: Expiring[StreamName, Kept] = Expiring(limit=CLIENTS, ttl=CLIENT_SECONDS)
        self.clients = ClientCache(
            self.kept, views=self.views, users=self.users, readers=self._readers
        )
        self.users.on_commit = lambda stream, state, *_: self.clients.changed(stream, state)

    async def meet(self) -> None:
        """Hear of everybody for the first time; the read model is built from that."""
        await asyncio.gather(*[self._receive(person) for person in self.people])
        rebuild(self.views, self.log, [CLIENT_VIEW])

    async def take(self, person: Person) -> None:
        """Look a client up, and make a message of theirs durable."""
        await self.clients.get(person.stream)
        await self._receive(person)

    async def _receive(self, person: Person) -> None:
        fact = MessageFact(
            id=f"bench-{next(self._numbers)}",
            person=Sender(phone=person.phone),
            chat_id=person.chat,
            at=0,
            kind="text",
            origin="person",
            text="hola, quiero saber cuánto cuesta el kayak",
        )
        await self.receiver(Delivery("whapi", CHANNEL, (fact,)))

    async def thousand(self) -> float:
        """Take a message of everybody at once; return the seconds until the last is durable."""
        start = time.perf_counter()
        await asyncio.gather(*[self.take(person) for person in self.people])
        return time.perf_counter() - start

    def lookups(self) -> float:
        """Look up who is in memory; return the microseconds of one look-up."""
        streams = [person.stream for person in self.people] * (LOOKUPS // len(self.people))
        known = self.clients.known
        start = time.perf_counter()
        for stream in streams:
            known(stream)
        return (time.perf_counter() - start) / len(streams) * _MICRO

    async def steady(self) -> float:
        """Let everybody write 20 times, mixed, from an empty memory; return the share of hits."""
        self.empty_memory()
        order = self.people * MESSAGES_EACH
        random.Random(23).shuffle(order)
        for person in order:
            await self.clients.get(person.stream)
        figures = self.kept.figures()
        return figures.hits / (figures.hits + figures.misses)

    def close(self) -> None:
        """Close everything."""
        self.identities.close()
        self.writer.close()
        self.views.close()
        self.keyring.close()
        self.log.close()


@contextmanager
def _desk(plan: Plan) -> Iterator[Desk]:
    readers = ThreadPoolExecutor(4)
    desk = Desk(plan, readers)
    try:
        yield desk
    finally:
        desk.close()
        readers.shutdown()


def clients(plan: Plan) -> list[Row]:
    """M003's own headlines."""
    with _desk(plan) as desk, asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(desk.meet())
        runner.run(desk.thousand())  # now they are in memory
        with collecting_as_served():
            rounds = [(runner.run(desk.thousand()), desk.lookups()) for _ in range(plan.rounds)]
        share = runner.run(desk.steady())
    everybody = f"{len(desk.people)} clients in memory"
    return [
        limit(
            "client-lookup",
            "look-up of a cached client",
            statistics.median(lookup for _, lookup in rounds),
            target=20.0,
            unit="µs",
            data_set=everybody,
        ),
        limit(
            "client-1000",
            "a message of each of 1000 users: looked up, and durable",
            statistics.median(seconds for seconds, _ in rounds) * 1000,
            target=100.0,
            unit="ms",
            data_set=everybody,
            notes="without HTTP: the webhook rows measure that",
        ),
        Row(
            name="client-hits",
            what="look-ups that memory answers, in M003's steady traffic",
            ours=100 * share,
            target=95.0,
            unit="%",
            data_set=f"{len(desk.people)} clients, {MESSAGES_EACH} messages each, mixed",
            ok=share >= 0.95,
            notes="from an empty memory: the first message of each asks the read model. A "
            "message needs none of it: its thread is in the user's state (docs/caches.md)",
        ),
    ]

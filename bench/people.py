"""The data of the benchmarks: people who do not exist, what they write, and the bench turn.

The bench turn, of five events, is what one exchange leaves in the log: `MessageReceived` (keyed,
its text sealed), `RunStarted`, `RunSubmitted`, `RunCompleted` (the reply sealed) and
`TokensIncremented`, decided by the user aggregate. The same seeds give the same people and texts.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

import msgspec

from app.aggregates.answers import BufferPolicy, Claimed, Completed, Spent
from app.aggregates.events import Content, Reply
from app.aggregates.user import User
from eventstore.keyring import Handle, KeyEncryptionKey, Keyring
from eventstore.sealing import Sealed, Sealer
from eventstore.sqlite import system_clock
from eventstore.types import Clock, IdempotencyKey, Micros, StreamName

EVENTS_PER_TURN: Final = 5
CHANNEL: Final = "BENCH-0000"
TEXTS: Final = 256
_AT_ONCE: Final = BufferPolicy(quiet=0, longest=0, most=1)
SPENT: Final = Spent(total=640, input=560, output=80, cached=512, model="gpt-5-mini")
_WORDS: Final = (
    *("hola", "buenas", "mañana", "tarde", "reserva", "kayak", "azul", "grupo", "domingo"),
    *("precio", "gracias", "salida", "hora", "playa", "puerto", "familia", "quiero", "saber"),
    *("cuánto", "cuesta", "llegar", "equipo", "viento", "olas", "curso", "niños", "dos", "tres"),
)


Command = Callable[[User], None]


class Person(msgspec.Struct, frozen=True):
    """Somebody who writes to the bot, and their stream."""

    phone: str
    pseudonym: str
    stream: StreamName

    @property
    def chat(self) -> str:
        """The chat's id, as the gateway names it."""
        return f"{self.phone}@s.whatsapp.net"


def phone(number: int) -> str:
    """The `number`-th invented phone number, 11 digits."""
    return f"1555{number:07d}"


def open_keyring(directory: Path) -> Keyring:
    """The keyring of a benchmark, where `hilo serve --data DIRECTORY/..` would look for it."""
    kek = KeyEncryptionKey.from_file(directory.parent / "kek")
    return Keyring.open(directory / "keys.db", kek, clock=system_clock)


def register(keyring: Keyring, count: int) -> list[Person]:
    """The first `count` people, each with an identity and a key, all in one transaction."""
    numbers = [phone(number) for number in range(count)]
    names = keyring.register([(Handle("phone", number),) for number in numbers])
    return [
        Person(number, name, StreamName(f"user/{name}"))
        for number, name in zip(numbers, names, strict=True)
    ]


def texts(shortest: int, longest: int, *, seed: int) -> list[str]:
    """`TEXTS` sentences of so many characters, evenly spread; the same for the same seed."""
    source = random.Random(seed)
    made = []
    for _ in range(TEXTS):
        length = source.randint(shortest, longest)
        words = " ".join(source.choice(_WORDS) for _ in range(longest // 3))
        made.append(words[:length].strip())
    return made


MESSAGES: Final = texts(20, 120, seed=1)
REPLIES: Final = texts(80, 240, seed=2)


class Exchange(msgspec.Struct, frozen=True, kw_only=True):
    """What one turn is about: ids, times, and both texts sealed."""

    ref: IdempotencyKey
    content: Sealed[Content]
    reply: Sealed[Reply]
    run: str
    response: str
    thread: str
    at: Micros

    @property
    def last_item(self) -> str:
        """The newest item of the conversation."""
        return f"msg_{self.run}"

    def record(self, user: User) -> None:
        """Decide the bench turn: a command for `Repository.decide`."""
        now = self.at
        user.receive_message(self.ref, "text", self.content, now=now, at=now)
        claimed = user.claim(self.run, node="bench", incarnation="1", now=now, policy=_AT_ONCE)
        user.run_submitted(self.run, self.response, thread=self.thread, now=now)
        completed = user.run_completed(
            self.run,
            self.response,
            reply=self.reply,
            parts=0,  # the delivery is not part of this turn
            billed=SPENT,
            thread=self.thread,
            now=now,
            last_item=self.last_item,
        )
        assert isinstance(claimed, Claimed)
        assert isinstance(completed, Completed)


class TurnMaker:
    """Makes exchanges: what an ingress and a run would have in hand, sealed and ready."""

    def __init__(self, keyring: Keyring, *, now: Clock = system_clock, seed: int = 0) -> None:
        """Ids are random and repeat with the same `seed`."""
        self._fingerprint = keyring.fingerprint
        self._seal = Sealer(keyring).seal
        self._now = now
        self._random = random.Random(seed)
        self._made = 0

    def exchange(self, person: Person) -> Exchange:
        """The next exchange with a person: one fingerprint, two texts sealed."""
        self._made += 1
        number = self._made % TEXTS
        ids = self._random.getrandbits(256)
        message_id = f"{ids & (1 << 80) - 1:020x}-gA4TrQ"
        owner, stream = person.pseudonym, person.stream
        written = Content(
            message_id=message_id, chat_id=person.chat, text=MESSAGES[number], name="Nerea Quill"
        )
        return Exchange(
            ref=self._fingerprint("message", "whapi", CHANNEL, message_id),
            content=self._seal(owner, stream, "content", written),
            reply=self._seal(owner, stream, "reply", Reply(parts=(REPLIES[number],))),
            run=f"run_{ids >> 160:024x}",
            response=f"resp_{ids >> 64:048x}",
            thread=f"conv_{owner}",
            at=self._now(),
        )

    def first_contact(self, person: Person) -> Command:
        """A command that registers a person and links their conversation: two events."""
        chat = self._seal(person.pseudonym, person.stream, "chat", person.chat)
        now = self._now()

        def command(user: User) -> None:
            user.register("whapi", chat, now=now)
            user.start_thread(f"conv_{person.pseudonym}", now=now)

        return command


def working_set(people: Sequence[Person], count: int) -> list[Person]:
    """`count` of the people, spread evenly over all of them."""
    step = max(1, len(people) // count)
    return list(people[::step][:count])

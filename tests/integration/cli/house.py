"""An installation made with the log's own parts: three people, their keys, their events."""

from __future__ import annotations

from pathlib import Path
from typing import Self

from app.aggregates import events as e
from app.aggregates.catalogue import EVENT_CLASSES
from eventstore.codec import Codec, Event
from eventstore.keyring import BOT, Handle, KeyEncryptionKey, Keyring
from eventstore.sealing import Sealer
from eventstore.sqlite import SQLiteLog, system_clock
from eventstore.types import (
    Append,
    Appended,
    IdempotencyKey,
    NewEvent,
    StreamName,
    new_append_id,
)
from eventstore.writer import Writer

ANA, BEN, EVA = "34612345678", "15550100002", "4915112345678"
ANA_LID = "98765432101234"


class House:
    """One bot's files, written as the server writes them."""

    def __init__(self, data: Path, bot: str = "default") -> None:
        directory = data / bot
        self.data = data
        self.log = SQLiteLog(directory / "log.db")
        self.writer = Writer(self.log)
        self.keyring = Keyring.open(
            directory / "keys.db", KeyEncryptionKey.from_file(data / "kek"), clock=system_clock
        )
        self.keyring.ensure_keys([BOT])
        self.sealer = Sealer(self.keyring)
        self.codec = Codec(EVENT_CLASSES)
        self.people: dict[str, str] = {}
        """Pseudonyms by phone number."""

    def furnish(self) -> None:
        """Ana was answered, Ben's turn is parked, Eva waits for an answer."""
        for phone in (ANA, BEN, EVA):
            self.arrive(phone)
        self.write(ANA, "hola, soy Ana", key=b"a" * 16)
        self.answer(ANA, tokens=1_234)
        self.write(BEN, "is anybody there?")
        self.park(BEN)
        self.write(EVA, "guten Tag")

    def arrive(self, phone: str) -> str:
        lid = (Handle("lid", ANA_LID),) if phone == ANA else ()
        (person,) = self.keyring.register([(Handle("phone", phone), *lid)])
        self.people[phone] = person
        chat = self.sealer.seal(person, self.stream(phone), "chat", f"{phone}@s.whatsapp.net")
        self.append(phone, e.UserRegistered(gateway="whapi", chat=chat))
        return person

    def write(self, phone: str, text: str, key: bytes | None = None, *, name: str = "") -> Appended:
        content = e.Content(message_id=f"m-{text}", chat_id=phone, text=text, name=name)
        sealed = self.sealer.seal(self.people[phone], self.stream(phone), "content", content)
        received = e.MessageReceived(ref=text.encode()[:16], kind="text", content=sealed)
        return self.append(phone, received, key=key)

    def answer(self, phone: str, *, tokens: int) -> None:
        stream, person = self.stream(phone), self.people[phone]
        up_to = self.log.stream_version(stream)
        run = f"run-{phone}-{up_to}"
        thread = f"conv_{phone[-4:]}"
        if not any(r.type == "ThreadStarted" for r in self.log.read_stream(stream)):
            self.append(phone, e.ThreadStarted(thread=thread, reason="first_time"))
        self.append(
            phone, e.RunStarted(run=run, node="n", incarnation="i", attempt=1, up_to=up_to, cor=run)
        )
        reply = self.sealer.seal(person, stream, "reply", e.Reply(("buenos días",)))
        self.append(
            phone,
            e.RunCompleted(run=run, response="resp_1", reply=reply, parts=1, cor=run),
            e.TokensIncremented(thread=thread, run=run, total=tokens, cor=run),
        )
        sent = self.sealer.seal(person, stream, "sent", e.SentMessage(f"out-{run}"))
        self.append(
            phone, e.MessageSent(run=run, part=0, ref=run.encode()[-16:], sent=sent, cor=run)
        )

    def park(self, phone: str) -> None:
        up_to = self.log.stream_version(self.stream(phone))
        self.append(phone, e.TurnParked(reason="failed", attempts=3, up_to=up_to))

    def append(self, phone: str, *events: Event, key: bytes | None = None) -> Appended:
        first, *others = events
        return self.append_stored(
            phone,
            self.codec.encode(first, None if key is None else IdempotencyKey(key)),
            *map(self.codec.encode, others),
        )

    def append_stored(self, phone: str, *events: NewEvent) -> Appended:
        stream = self.stream(phone)
        return self.writer.append_blocking(
            Append(
                stream=stream,
                expected=self.log.stream_version(stream),
                events=events,
                epoch=self.log.head().epoch,
                append_id=new_append_id(),
            )
        )

    def stream(self, phone: str) -> StreamName:
        return StreamName(f"user/{self.people[phone]}")

    def close(self) -> None:
        self.writer.close()
        self.keyring.close()
        self.log.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

"""What the Whapi simulator remembers: chats as a phone shows them, media, and its account."""

import random
import re
import time
from typing import Literal, TypeAlias

import msgspec

from app.simulators.bounded import forget_oldest
from app.simulators.web import Json, VendorError

MAX_CHATS = 100_000
MAX_MESSAGES = 5_000  # per chat
MAX_INDEX = 500_000  # messages that can be found by their id alone
MAX_MEDIA_BYTES = 128 * 1024 * 1024  # all files together

BOT_NUMBER = "15550100999"
CHANNEL = "SIMULA-H1L0X"
NAMES = (
    "Alba Ficticia",
    "Bruno Inventado",
    "Clara de Prueba",
    "Diego Ejemplo",
    "Elisa Muestra",
    "Fabio Supuesto",
    "Gema Imaginaria",
)

Author: TypeAlias = Literal["customer", "bot", "agent"]


class Kept(msgspec.Struct):
    """A message as the gateway has it, with what has become of it."""

    seq: int
    """Its number in its chat, from 1."""
    message: Json
    received_at: float
    edited: bool = False
    deleted: bool = False
    read: bool = False

    @property
    def author(self) -> Author:
        """Who wrote it: the bot is the one who writes through the API."""
        if not self.message["from_me"]:
            return "customer"
        return "bot" if self.message.get("source") == "api" else "agent"

    @property
    def body(self) -> str:
        """Return what a person reads of it: its text, or its caption."""
        content = self.message.get(str(self.message["type"]))
        if not isinstance(content, dict):
            return ""
        return str(content.get("body") or content.get("caption") or "")

    def shown(self) -> Json:
        """Return it as the phone shows it."""
        return {
            "seq": self.seq,
            "id": self.message["id"],
            "from": self.author,
            "type": self.message["type"],
            "body": "" if self.deleted else self.body,
            "at": self.message["timestamp"],
            "status": self.message.get("status"),
            "edited": self.edited,
            "deleted": self.deleted,
            "read": self.read,
        }


class Chat(msgspec.Struct):
    """One chat of the bot's number."""

    id: str
    name: str
    labels: list[Json] = []
    kept: list[Kept] = []
    last: int = 0
    """The number of its newest message."""
    bot_presence: str | None = None
    """`typing` or `recording` while the customer would see it."""

    def shown(self) -> Json:
        """Return it as `GET /chats/{id}` shows it."""
        kind = "group" if self.id.endswith("@g.us") else "contact"
        return {
            "id": self.id,
            "name": self.name,
            "type": kind,
            "timestamp": self.kept[-1].message["timestamp"] if self.kept else 0,
            "unread": sum(not (kept.read or kept.message["from_me"]) for kept in self.kept),
            "labels": self.labels,
            **({"last_message": self.kept[-1].message} if self.kept else {}),
        }


class Medium(msgspec.Struct):
    """A file of the gateway's storage."""

    id: str
    mime_type: str
    content: bytes
    file_name: str
    timestamp: int

    def shown(self) -> Json:
        """Return its description, in the vendor's shape."""
        return {
            "id": self.id,
            "mime_type": self.mime_type,
            "file_size": len(self.content),
            "file_name": self.file_name,
            "timestamp": self.timestamp,
        }


class Undelivered(msgspec.Struct):
    """A webhook that waits for its receiver."""

    type: str
    name: Literal["post", "put", "patch", "delete"]
    body: bytes
    attempts: int = 0


class WhapiState(msgspec.Struct):
    """Everything that `--state FILE` keeps."""

    seed: int
    counter: int = 0
    chats: dict[str, Chat] = {}
    media: dict[str, Medium] = {}
    labels: list[Json] = []
    index: dict[str, str] = {}
    """The chat of each message."""
    subscribed: set[str] = set()
    sent: int = 0
    """How many messages were sent through the API; stays exact when old ones are forgotten."""
    undelivered: list[Undelivered] = []
    """Webhooks that waited when the simulator stopped."""

    @classmethod
    def fresh(cls, seed: int | None = None) -> "WhapiState":
        """Return an empty state; the same seed gives the same ids, no seed gives new ones."""
        return cls(seed=random.SystemRandom().getrandbits(40) if seed is None else seed)

    def new_id(self, kind: str = "sim") -> str:
        """Return the next id, in the vendor's pattern: `Sim0000000001-00001c6f2a-sim.`."""
        self.counter += 1
        return f"Sim{self.counter:010d}-{self.seed & 0xFFFFFFFFFF:010x}-{kind:.<4}"

    def chat(self, chat_id: str) -> Chat:
        """Return a chat, made if it is new."""
        found = self.chats.get(chat_id)
        if found is None:
            name = NAMES[sum(map(ord, chat_id)) % len(NAMES)]
            found = self.chats[chat_id] = Chat(chat_id, name)
            forget_oldest(self.chats, MAX_CHATS)
        return found

    def known_chat(self, chat_id: str) -> Chat:
        """Return a chat. Raises VendorError 404."""
        found = self.chats.get(chat_id)
        if found is None:
            raise VendorError(404, "Specified chat not found")
        return found

    def keep(self, message: Json) -> Kept:
        """Put a message into its chat."""
        chat = self.chat(str(message["chat_id"]))
        chat.last += 1
        kept = Kept(chat.last, message, time.time())
        chat.kept.append(kept)
        self.index[str(message["id"])] = chat.id
        forget_oldest(self.index, MAX_INDEX)
        if len(chat.kept) > MAX_MESSAGES:
            del chat.kept[: len(chat.kept) - MAX_MESSAGES]
        if kept.author == "bot":
            self.sent += 1
            chat.bot_presence = None
        return kept

    def find(self, message_id: str) -> Kept:
        """Return a message by its id. Raises VendorError 404."""
        chat = self.chats.get(self.index.get(message_id, ""))
        for kept in reversed(chat.kept if chat else ()):
            if kept.message["id"] == message_id:
                return kept
        raise VendorError(404, "Specified message not found")

    def store(self, content: bytes, mime_type: str, file_name: str = "") -> Medium:
        """Keep a file, forgetting the oldest when there are too many bytes."""
        ending = re.sub(r"[^a-z0-9]", "", mime_type.partition(";")[0].rpartition("/")[2]) or "bin"
        self.counter += 1
        medium_id = f"{ending}-{self.counter:08x}-{self.seed & 0xFFFFFFFFFF:010x}"
        medium = Medium(
            medium_id, mime_type, content, file_name or f"{medium_id}.{ending}", int(time.time())
        )
        self.media[medium.id] = medium
        total = sum(len(kept.content) for kept in self.media.values())
        while total > MAX_MEDIA_BYTES and len(self.media) > 1:
            total -= len(self.media.pop(next(iter(self.media))).content)
        return medium


def chat_id_of(address: str) -> str:
    """Return the chat of a phone number; an address with `@` is one already."""
    return address if "@" in address else f"{address.lstrip('+')}@s.whatsapp.net"


def contact_of(chat_id: str) -> str:
    """Return how a chat's person is called in `from` and `contact_id`: bare digits, or a lid."""
    return chat_id.removesuffix("@s.whatsapp.net")

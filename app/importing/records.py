"""What the importable formats hold, read and checked. Instants are µs, UTC."""

from __future__ import annotations

from typing import Literal

import msgspec

from app.conversation.facts import Person

LineKind = Literal[
    "text", "image", "video", "audio", "document", "sticker", "gif", "contact", "media", "system"
]


class Rejected(msgspec.Struct, frozen=True):
    """What could not be read, and why. `line` counts from 1."""

    file: str
    line: int
    reason: str
    path: str = ""
    """What of a JSON file it is, as `$["15550100001"].createdAt` (RFC 9535): it may be all in one
    line."""

    def __str__(self) -> str:
        """Say where and why, as a compiler does."""
        return ": ".join(filter(None, (f"{self.file}:{self.line}", self.path, self.reason)))


class ClientEntry(msgspec.Struct, frozen=True):
    """One person of a thread file or of the guest memory."""

    line: int
    person: Person
    chat: str
    """The chat's id at the gateway."""
    name: str | None = None
    """What they are called in the address book; None: the file says nothing of it."""
    user_name: str | None = None
    """What they call themselves."""
    labels: tuple[str, ...] | None = None
    thread: str = ""
    """The conversation's id; empty if the format has none."""
    created_at: int | None = None
    last_activity: int | None = None


class ClientFile(msgspec.Struct, frozen=True):
    """Everything of one thread file or guest memory."""

    file: str
    taken_at: int | None
    """When the file was written, if its name tells."""
    entries: tuple[ClientEntry, ...]
    rejected: tuple[Rejected, ...]


class ChatLine(msgspec.Struct, frozen=True):
    """One message of a WhatsApp export; `author` is empty for what WhatsApp itself says."""

    line: int
    at: int
    author: str
    text: str
    kind: LineKind = "text"
    file_name: str = ""


class ChatFile(msgspec.Struct, frozen=True):
    """Everything of one WhatsApp export."""

    file: str
    lines: tuple[ChatLine, ...]
    rejected: tuple[Rejected, ...]
    date_order: Literal["dmy", "mdy", "ymd"] = "dmy"
    assumed_order: bool = False
    """True if no date of the file tells day from month: the order is the caller's."""

    def authors(self) -> tuple[str, ...]:
        """Return who wrote, in the order of their first message."""
        return tuple(dict.fromkeys(line.author for line in self.lines if line.author))


class Unreadable(Exception):
    """A file is of no format that can be imported; the message says which there are."""

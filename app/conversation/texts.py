"""What a turn says to the model, and how its answer is cut for WhatsApp."""

from __future__ import annotations

from collections.abc import Sequence

from app.aggregates.events import Content, MessageEdited, MessageReceived
from app.aggregates.open_work import Pending
from app.conversation.kinds import USER_CODEC
from eventstore.sealing import Sealer
from eventstore.store import LogReader
from eventstore.types import Recorded, StreamName, Version

MAX_PART = 4000
"""Characters of one WhatsApp text, with room to spare under the vendor's 4096."""

KIND_NAMES = {
    "voice": "nota de voz",
    "audio": "audio",
    "image": "imagen",
    "video": "video",
    "gif": "gif",
    "short": "video",
    "document": "documento",
    "sticker": "sticker",
    "location": "ubicación",
    "live_location": "ubicación",
    "contact": "contacto",
    "contact_list": "contactos",
    "poll": "encuesta",
}


def read_texts(
    log: LogReader, sealer: Sealer, stream: StreamName, waiting: Sequence[Pending]
) -> tuple[str, ...]:
    """Return what the waiting messages say now, edits included, oldest first by the sender's time.

    Blocking: runs on a reader thread. Each text costs one look into the stream, by version.
    """
    owner = stream.partition("/")[2]
    found: list[tuple[int, int, str]] = []
    before = 0
    for entry in waiting:
        if entry.count == 1:
            wanted = [_event(log, stream, entry.text)]
        else:  # many messages merged into one entry: everything received since the one before
            wanted = _received(log, stream, before, entry.version)
        for recorded in wanted:
            event = USER_CODEC.decode(recorded.type, recorded.state)
            if not isinstance(event, MessageReceived | MessageEdited):
                continue
            content = sealer.open(owner, stream, "content", event.content, Content)
            kind = event.kind if isinstance(event, MessageReceived) else "text"
            at = entry.at if event.at is None or entry.count == 1 else event.at
            found.append((at, entry.version, _say(kind, content)))
        before = entry.version
    return tuple(text for _, _, text in sorted(found, key=lambda row: row[:2]))


def _event(log: LogReader, stream: StreamName, version: int) -> Recorded:
    return log.read_stream(stream, after=Version(version - 1), up_to=Version(version))[0]


def _received(log: LogReader, stream: StreamName, after: int, up_to: int) -> list[Recorded]:
    events = log.read_stream(stream, after=Version(after), up_to=Version(up_to))
    return [event for event in events if event.type == "MessageReceived"]


def _say(kind: str, content: Content) -> str:
    name = KIND_NAMES.get(kind)
    if name is None:
        return content.text or f"[{kind}]"
    return f"[{name}] {content.text}".rstrip()


def split_reply(text: str, limit: int = MAX_PART) -> tuple[str, ...]:
    """Cut an answer into parts of at most `limit` characters, at paragraphs, lines or spaces."""
    parts: list[str] = []
    rest = text.strip()
    while len(rest) > limit:
        cut = max(rest.rfind(mark, 1, limit) for mark in ("\n\n", "\n", " "))
        cut = cut if cut > limit // 2 else limit
        parts.append(rest[:cut].rstrip())
        rest = rest[cut:].lstrip()
    if rest:
        parts.append(rest)
    return tuple(part for part in parts if part)

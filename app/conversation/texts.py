"""What a turn says to the model, and how its answer is cut for WhatsApp."""

from __future__ import annotations

from collections.abc import Sequence

from app.aggregates.events import Content, MessageDeleted, MessageEdited, MessageReceived
from app.aggregates.open_work import Pending
from app.conversation.kinds import USER_CODEC
from eventstore.codec import Event
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

_ABOUT_MESSAGES = frozenset(
    USER_CODEC.stored_names((MessageReceived, MessageEdited, MessageDeleted))
)


def read_texts(
    log: LogReader, sealer: Sealer, stream: StreamName, waiting: Sequence[Pending]
) -> tuple[str, ...]:
    """Return what the waiting messages say now, edits included, oldest first by the sender's time.

    Blocking: runs on a reader thread. Each text costs one look into the stream, by version; only
    for messages that were merged into one entry a stretch of the stream is read.
    """
    found: list[tuple[int, int, str]] = []
    before = 0
    for entry in waiting:
        for received, content_at in _messages(log, stream, before, entry):
            message = USER_CODEC.decode(received.type, received.state)
            if not isinstance(message, MessageReceived):
                continue
            newest: Event = message
            if content_at != received.version:
                event = _event(log, stream, content_at)
                newest = USER_CODEC.decode(event.type, event.state)
            sent_at = message.at or received.recorded_at
            text = say(message.kind, _open(sealer, stream, newest))
            found.append((sent_at, received.version, text))
        before = entry.version
    return tuple(text for _, _, text in sorted(found, key=lambda row: row[:2]))


def _messages(
    log: LogReader, stream: StreamName, before: int, entry: Pending
) -> list[tuple[Recorded, int]]:
    """Return the messages that an entry stands for, each with the version of its newest content."""
    if entry.count == 1 and entry.text:
        return [(_event(log, stream, entry.version), entry.text)]
    # Many, of which the state keeps only how many: the last so many before `entry.version`,
    # less those that were taken back since.
    received: list[tuple[Recorded, bytes]] = []
    edited: dict[bytes, int] = {}
    deleted: set[bytes] = set()
    for recorded in log.read_stream(stream, after=Version(before)):
        if recorded.type not in _ABOUT_MESSAGES:
            continue
        match USER_CODEC.decode(recorded.type, recorded.state):
            case MessageReceived(ref=ref, answerable=True) if recorded.version <= entry.version:
                if ref not in deleted:
                    received.append((recorded, ref))
            case MessageEdited(ref=ref):
                edited[ref] = recorded.version
            case MessageDeleted(ref=ref):
                deleted.add(ref)
    newest = received[-entry.count :]
    return [(row, edited.get(ref, row.version)) for row, ref in newest if ref not in deleted]


def _open(sealer: Sealer, stream: StreamName, event: Event) -> Content:
    if not isinstance(event, MessageReceived | MessageEdited):
        msg = f"{stream}: a {type(event).__name__} where a message's content should be"
        raise TypeError(msg)
    return sealer.open(stream.partition("/")[2], stream, "content", event.content, Content)


def _event(log: LogReader, stream: StreamName, version: int) -> Recorded:
    return log.read_stream(stream, after=Version(version - 1), up_to=Version(version))[0]


def say(kind: str, content: Content) -> str:
    """Return a message of any kind as words for the model."""
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

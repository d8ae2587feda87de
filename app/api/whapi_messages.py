"""One message as Whapi shows it → one fact: who, when, which kind, what it says.

Shapes: `Message` and the `MessageContent…` schemas of the vendor's OpenAPI 1.8.7. Of an item,
only `id`, `chat_id` and `from_me` must be what they should be; any other field of a wrong type
is left out, so that a change at the vendor costs a field and never a message.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Generic, Literal, TypeVar

import msgspec
from msgspec import Raw, field

from app.aggregates.events import Media
from app.conversation.facts import DeleteFact, EditFact, Fact, MessageFact, OtherFact, Person

Fields = dict[str, object]
S = TypeVar("S", bound=msgspec.Struct)
T = TypeVar("T")

UNREADABLE = (ValueError, RecursionError)
"""What decoding raises: msgspec's errors and UnicodeDecodeError are ValueErrors."""


class _Text(msgspec.Struct, gc=False):
    body: str | None = None


class _Context(msgspec.Struct, gc=False):
    quoted_id: str | None = None


class Message(msgspec.Struct, gc=False):
    """The fields that every type of message shares, and the content of the commonest."""

    id: str
    chat_id: str
    from_me: bool = False
    type: str | None = None
    sender: str | None = field(name="from", default=None)
    from_name: str | None = None
    chat_name: str | None = None
    source: str | None = None
    timestamp: int | float | str | None = None
    text: _Text | None = None
    context: _Context | None = None


_FIELDS = msgspec.json.Decoder(dict[str, object])
_RAW_FIELDS = msgspec.json.Decoder(dict[str, Raw])


# --- What every kind of item shares ---------------------------------------------------------------


class Tolerant(Generic[S]):
    """Decodes one shape; fields of a wrong type are left out unless they are `essential`."""

    def __init__(self, shape: type[S], *essential: str) -> None:
        self._shape = shape
        self._essential = essential
        self._strict = msgspec.json.Decoder(shape)

    def decode(self, raw: Raw) -> S:
        """Return what `raw` holds of the shape.

        Raises one of `UNREADABLE` if it is no object, or an essential field is missing or wrong.
        """
        try:
            return self._strict.decode(raw)
        except UNREADABLE:
            return self._decode_by_field(raw)

    def _decode_by_field(self, raw: Raw) -> S:
        given = _RAW_FIELDS.decode(raw)
        kept: Fields = {}
        for spec in msgspec.structs.fields(self._shape):
            if spec.encode_name not in given:
                continue
            try:
                kept[spec.name] = msgspec.json.decode(given[spec.encode_name], type=spec.type)
            except UNREADABLE:
                if spec.name in self._essential:
                    raise
        try:
            return self._shape(**kept)
        except TypeError as error:  # a required field is absent
            raise msgspec.ValidationError(str(error)) from None


def micros(stamp: object) -> int:
    """Return µs of a time in seconds, or in ms above 1e11; 0 for anything that is no time."""
    if isinstance(stamp, str):
        try:
            stamp = float(stamp)
        except ValueError:
            return 0
    if not isinstance(stamp, int | float) or not 0 < stamp < 1e14:  # noqa: PLR2004 - NaN falls out too
        return 0
    return round(stamp * (1_000_000 if stamp <= 1e11 else 1_000))  # noqa: PLR2004


_WORD = re.compile(r"[A-Za-z_]{1,32}", re.ASCII)


def word(value: object) -> str:
    """Return `value` if it is a plain word: kinds and statuses are stored in clear, "" if not."""
    return value if isinstance(value, str) and _WORD.fullmatch(value) else ""


_PHONE_SERVERS = frozenset(("", "s.whatsapp.net", "c.us"))
_LID_SERVERS = frozenset(("lid", "hosted.lid"))


def _address(address: str) -> tuple[str, str]:
    """Split `15550100001:12@s.whatsapp.net` into digits (without the device) and server.

    The digits are "" where the user part is no number: E.164 has at most 15 and a lid may have
    more, below five it is WhatsApp itself (`0@s.whatsapp.net`).
    """
    user, _, server = address.partition("@")
    user = user.partition(":")[0]
    longest = 15 if server in _PHONE_SERVERS else 20
    if 5 <= len(user) <= longest and user.isascii() and user.isdigit():  # noqa: PLR2004
        return user, server
    return "", server


def person_of(chat: str, sender: str = "") -> Person | None:
    """Return who stands behind a one-to-one chat; None for groups and all that is no person.

    `sender` is the item's `from`, to be passed only where it is the same person: it joins the
    phone number to a `lid` chat, or the lid to a phone's. Both are bare digits in `Person`.
    """
    number, server = _address(chat)
    if not number:
        return None
    if server in _PHONE_SERVERS and "@" not in sender:  # nearly everybody
        return Person(phone=number)
    other, space = _address(sender) if sender else ("", "")
    if server in _PHONE_SERVERS:
        return Person(phone=number, lid=other if other and space in _LID_SERVERS else None)
    if server not in _LID_SERVERS:
        return None
    # The vendor may repeat the lid's own digits in `from`: they are not a phone number.
    known = bool(other) and other != number and space in _PHONE_SERVERS
    return Person(phone=other if known else None, lid=number)


_SPACES = {"g.us": "group", "newsletter": "newsletter"} | dict.fromkeys(
    ("broadcast", "stories"), "broadcast"
)


def other_kind(chat: str, thing: str, default: str) -> str:
    """Return `<group|newsletter|broadcast>_<thing>` for a chat that is one, else `default`."""
    space = _SPACES.get(chat.rpartition("@")[2])
    return f"{space}_{thing}" if space else default


# --- What a message says --------------------------------------------------------------------------


def _text(fields: Fields, key: str) -> str:
    value = fields.get(key)
    return value if isinstance(value, str) else ""


def _fields(fields: Fields, key: str) -> Fields:
    value = fields.get(key)
    return value if isinstance(value, dict) else {}


def _items(fields: Fields, key: str, item_type: type[T]) -> list[T]:
    value = fields.get(key)
    items = value if isinstance(value, list) else []
    return [item for item in items if isinstance(item, item_type)]


def _number(fields: Fields, key: str) -> float:
    value = fields.get(key)
    if isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < 2**63:
        return value
    return 0


def _lines(*parts: str) -> str:
    return "\n".join(part for part in parts if part)


def _any(content: Fields) -> str:
    """Read kinds that this release does not know: the first text under a usual name."""
    names = ("body", "caption", "text", "title", "name")
    return next((text for name in names if (text := _text(content, name))), "")


def _link(content: Fields) -> str:
    title = _lines(_text(content, "title"), _text(content, "description"))
    return _text(content, "body") or title or _text(content, "url")


def _location(content: Fields) -> str:
    found = (content.get("latitude"), content.get("longitude"))
    where = ",".join(str(value) for value in found if type(value) in (int, float))
    names = (_text(content, key) for key in ("name", "address", "comment", "caption"))
    return " ".join(part for part in (where, *names) if part)


def _contact(content: Fields) -> str:
    if name := _text(content, "name"):
        return name
    found = re.search(r"^FN[^:\r\n]*:([^\r\n]+)", _text(content, "vcard"), re.MULTILINE)
    return found[1].strip() if found else ""


def _reply(content: Fields) -> str:
    chosen = _fields(content, "buttons_reply") or _fields(content, "list_reply")
    # What was offered comes back as `ButtonsV3:<id>` or `ListV3:<id>`.
    identifier = re.sub(r"^(?:Buttons|List)V3:", "", _text(chosen, "id"))
    return _lines(_text(chosen, "title"), _text(chosen, "description")) or identifier


def _poll(content: Fields) -> str:
    options = (f"- {name}" for name in _items(content, "options", str))
    return _lines(_text(content, "title"), *options)


def _order(content: Fields) -> str:
    price = _number(content, "total_price")
    total = f"{price} {_text(content, 'currency')}".strip() if price else ""
    return _lines(_text(content, "title"), _text(content, "text"), total)


def _sections(content: Fields) -> str:
    """Read `interactive`, `hsm`, `list` and `buttons`: each part is a text or holds one."""
    parts: list[str] = []
    for key in ("header", "body", "text", "footer"):
        part = _fields(content, key)
        inner = _fields(part, "text")
        parts.append(_text(content, key) or _text(part, "text") or _text(inner, "body"))
    return _lines(*parts)


def _carousel(content: Fields) -> str:
    cards = (_text(card, "text") for card in _items(content, "cards", dict))
    return _lines(_sections(content), *cards)


_READERS: dict[str, Callable[[Fields], str]] = {
    **dict.fromkeys(("link_preview", "group_invite", "newsletter_invite", "catalog"), _link),
    **dict.fromkeys(("location", "live_location"), _location),
    **dict.fromkeys(("interactive", "hsm", "list", "buttons"), _sections),
    "admin_invite": lambda content: _text(content, "body") or _text(content, "newsletter_name"),
    "carousel": _carousel,
    "contact": _contact,
    "contact_list": lambda content: _lines(*map(_contact, _items(content, "list", dict))),
    "event": lambda content: _lines(*(_text(content, key) for key in ("name", "description"))),
    "order": _order,
    "poll": _poll,
    "product": lambda content: _text(content, "product_id"),
    "reply": _reply,
}
_FILES = frozenset(("image", "video", "gif", "short", "audio", "voice", "document", "sticker"))
_MEDIA = _FILES | {"documentWithCaption", "interactive"}
_WHOLE = _FILES | {"documentWithCaption", "text", "link_preview"}
"""Kinds of which text and media say everything; of any other the item is kept as it came."""
_SILENT = frozenset(("system", "unknown", "call", "pin", "story"))
"""Kinds that are recorded and never answered, whatever they say."""


def _media(content: Fields) -> Media | None:
    """Return the file of a message. One without a link is kept: its id can be fetched."""
    media = Media(
        id=_text(content, "id"),
        mime=_text(content, "mime_type"),
        size=int(_number(content, "file_size")),
        sha256=_text(content, "sha256"),
        link=_text(content, "link"),
        file_name=_text(content, "file_name") or _text(content, "filename"),
        seconds=_number(content, "seconds"),
    )
    return media if media.id or media.link else None


_MESSAGE = Tolerant(Message, "id", "chat_id", "from_me")

# --- Facts ----------------------------------------------------------------------------------------


def read_text(message: Message) -> MessageFact | None:
    """Return the fact of a text in a one-to-one chat, the commonest message; None for any other."""
    if message.type != "text" or message.text is None or not message.text.body or not message.id:
        return None
    person = _person(message)
    return None if person is None else _fact(message, person, "text", message.text.body)


def _person(message: Message) -> Person | None:
    # `from` of our own messages is the bot's number: it must not be joined to the person's lid.
    return person_of(message.chat_id, "" if message.from_me else message.sender or "")


def read_message(raw: Raw, *, kind_of_rest: str = "messages.post") -> Fact:
    """Return the fact that one message is.

    A message in a one-to-one chat → `MessageFact`; an `action` that edits or deletes →
    `EditFact` or `DeleteFact`; in a group, newsletter or broadcast → `OtherFact`, of
    `kind_of_rest` where the chat is none of these. Raises one of `UNREADABLE` for an item that
    has no usable id, chat or direction.
    """
    message = _MESSAGE.decode(raw)
    if not message.id:
        msg = "a message without an id"
        raise ValueError(msg)
    text = read_text(message)
    if text is not None:
        return text
    person = _person(message)
    if person is None:
        kind = other_kind(message.chat_id, "message", kind_of_rest)
        return OtherFact(kind=kind, raw=bytes(raw), id=message.id)
    kind = word(message.type) or "unknown"
    content = _content(raw, kind)
    if kind == "action":
        return _action(message, person, content, raw)
    return _spoken(message, person, kind, content, raw)


def _content(raw: Raw, kind: str) -> Fields:
    """Return the object under the key named like the kind; empty if there is none."""
    given = _RAW_FIELDS.decode(raw)
    value = given.get(kind) or (given.get("document") if kind == "documentWithCaption" else None)
    try:
        return {} if value is None else _FIELDS.decode(value)
    except UNREADABLE:
        return {}


def _spoken(message: Message, person: Person, kind: str, content: Fields, raw: Raw) -> MessageFact:
    """Return the fact of a message with content of `kind`."""
    text = _READERS.get(kind, _any)(content)
    media = _media(content) if kind in _MEDIA else None
    said = bool(text) or media is not None
    return _fact(
        message,
        person,
        kind,
        text,
        media=media,
        answerable=said and kind not in _SILENT,
        raw=b"" if said and kind in _WHOLE else bytes(raw),
    )


def _action(message: Message, person: Person, action: Fields, raw: Raw) -> Fact:
    """Return what an `action` does: to edit, to delete, or to react in some way."""
    kind = word(action.get("type")) or "action"
    target = _text(action, "target")
    if kind in ("edit", "edited") and target:
        edited = word(action.get("edited_type")) or "text"
        content = _fields(action, "edited_content")
        content = _fields(content, edited) or content
        message.id = target
        return EditFact(target, _spoken(message, person, edited, content, raw))
    if kind == "delete" and target:
        return DeleteFact((target,), person)
    response = _text(_fields(action, "event_response"), "response")
    text = _text(action, "comment") or _text(action, "emoji") or response
    text = text or "\n".join(_items(action, "votes", str))
    return _fact(
        message,
        person,
        kind,
        text,
        quoted_id="" if "@" in target else target,
        answerable=kind == "comment" and bool(text),  # the only action that says something
        raw=bytes(raw),
    )


def _fact(  # noqa: PLR0913 - the one place where a MessageFact is made
    message: Message,
    person: Person,
    kind: str,
    text: str,
    *,
    media: Media | None = None,
    quoted_id: str = "",
    answerable: bool = True,
    raw: bytes = b"",
) -> MessageFact:
    context = message.context
    origin: Literal["person", "human", "bot"] = "person"
    name = message.from_name or message.chat_name or ""
    if message.from_me:
        origin = "bot" if message.source == "api" else "human"
        name = message.chat_name or ""
    return MessageFact(
        id=message.id,
        person=person,
        chat_id=message.chat_id,
        at=micros(message.timestamp),
        kind=kind,
        origin=origin,
        text=text,
        name=name,
        quoted_id=quoted_id or (context is not None and context.quoted_id) or "",
        media=media,
        answerable=answerable and message.source != "system",
        raw=raw,
    )

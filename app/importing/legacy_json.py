"""Thread files and guest memory of the old bot (M001): one JSON object, a member for each person.

    threads-data.json  threads.json  threads.json.backup      the threads as they were last
    threads-<ISO>.json  threads-backup-<ISO>.json             the same at the time in the name
    guest-memory.json                                         names and labels, no thread

Whether it is guest memory is told by what the members hold, not by the file's name. The time is
the file name's, never the folder's: an old folder of March held files of July.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from datetime import UTC, datetime
from json import JSONDecodeError
from typing import Annotated, Final, NamedTuple

import msgspec

from app.conversation.facts import Person
from app.importing.records import ClientEntry, ClientFile, Rejected, Unreadable

_SPACE: Final = re.compile(r"[ \t\n\r]*")
_NAME_TIME: Final = re.compile(
    r"(?:^|-)(\d{4})-(\d\d)-(\d\d)T(\d\d)-(\d\d)-(\d\d)-(\d{3})Z\.json", re.ASCII
)
_PLAIN: Final = re.compile(r"[A-Za-z_]\w*", re.ASCII)
_SERVERS: Final = frozenset({"s.whatsapp.net", "c.us", "lid", "g.us"})
_DIGITS: Final = re.compile(r"\d{7,15}", re.ASCII)
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_FIRST_YEAR: Final = 2009  # WhatsApp's
_MICRO: Final = 1_000_000
_decode: Final = json.JSONDecoder().raw_decode


class _Label(msgspec.Struct):
    """A label as WhatsApp's API gives it."""

    name: str
    id: str = ""


class _Member(msgspec.Struct, rename="camel"):
    """What is known of one person; each format fills some of it, others' fields are ignored."""

    thread_id: str | None = None
    chat_id: str | None = None
    user_name: str | None = None
    name: str | None = None
    created_at: str | Annotated[int, msgspec.Meta(ge=0)] | None = None
    last_activity: str | Annotated[int, msgspec.Meta(ge=0)] | None = None
    labels: list[str | _Label] | None = None
    whapi_labels: list[str | _Label] | None = None
    last_interaction: str | Annotated[int, msgspec.Meta(ge=0)] | None = None


_FIELDS: Final = frozenset(field.encode_name for field in msgspec.structs.fields(_Member))
_WANTED: Final = (
    "no member is a person's, whose key is a phone number or a WhatsApp id and whose value an "
    "object with threadId, userName, name, labels or lastActivity"
)


class _Wrong(Exception):
    """One member cannot be used; the message says why, without personal data, `at` what of it."""

    def __init__(self, message: str, at: str = "") -> None:
        self.at = at
        super().__init__(message)


class _Found(NamedTuple):
    """One member of a file, not yet looked at."""

    line: int
    path: str
    key: str | None
    """None: a value in an array that is no pair."""
    value: object


def read_clients(content: bytes, file: str) -> ClientFile:
    """Return the people of a file. Raises `Unreadable` if it is not one JSON object (or its pairs).

    Also if it is one in which no member is a person's, by its key or its fields. Else a member that
    cannot be used is rejected with its line and path, and the others are kept; where the JSON
    itself breaks off, everything after that place is lost and said to be.
    """
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError:
        msg = f"{file} is not UTF-8 text"
        raise Unreadable(msg) from None
    entries: list[ClientEntry] = []
    rejected: list[Rejected] = []
    known = False
    try:
        for found in _members(text):
            known = known or _is_of_a_format(found)
            try:
                entries.append(_entry(found))
            except _Wrong as wrong:
                path = found.path + wrong.at
                rejected.append(Rejected(file, found.line, str(wrong), path))
    except JSONDecodeError as error:
        if not known:
            msg = f"{file} is not JSON: {error.msg} in line {error.lineno}"
            raise Unreadable(msg) from None
        reason = (
            f"the JSON breaks off here, in column {error.colno} ({error.msg}): nothing after it "
            "could be read"
        )
        rejected.append(Rejected(file, error.lineno, reason))
    if rejected and not known:
        msg = f"{file} is JSON, but of no format that can be imported: {_WANTED}"
        raise Unreadable(msg)
    return ClientFile(file, taken_at(file), tuple(entries), tuple(rejected))


def taken_at(file: str) -> int | None:
    """Return when a file was written, by its name (µs); None if the name does not tell."""
    found = _NAME_TIME.search(file)
    if found is None:
        return None
    *moment, millis = (int(part) for part in found.groups())
    try:
        return _micros(datetime(*moment, millis * 1000, tzinfo=UTC))  # type: ignore[misc,arg-type]
    except ValueError:
        return None


def _members(text: str) -> Iterator[_Found]:
    """Yield the members. Raises `JSONDecodeError` where it is not JSON.

    Also of an array of [key, value] pairs, which is how a JavaScript `Map` is often saved.
    Anything else that is JSON is one value without a key.
    """
    at = _skip(text, 0)
    opening = text[at : at + 1]
    if opening not in ("{", "["):
        value, _ = _decode(text, at)
        yield _Found(1, "$", None, value)
        return
    closing, member = ("}", _named) if opening == "{" else ("]", _pair)
    line, counted, number = 1, 0, 0
    at = _skip(text, at + 1)
    more = text[at : at + 1] != closing
    while more:
        line, counted = line + text.count("\n", counted, at), at
        key, value, at = member(text, at)
        yield _Found(line, _path(key, number if opening == "[" else None), key, value)
        number += 1
        at = _skip(text, at)
        more = text[at : at + 1] == ","
        if more:
            at = _skip(text, at + 1)
    if text[at : at + 1] != closing:
        msg = f"expecting ',' or '{closing}'"
        raise JSONDecodeError(msg, text, at)


def _named(text: str, at: int) -> tuple[str, object, int]:
    if text[at : at + 1] != '"':
        msg = "expecting a name in double quotes"
        raise JSONDecodeError(msg, text, at)
    key, at = _decode(text, at)
    at = _skip(text, at)
    if text[at : at + 1] != ":":
        msg = "expecting ':'"
        raise JSONDecodeError(msg, text, at)
    value, at = _decode(text, _skip(text, at + 1))
    return key, value, at


def _pair(text: str, at: int) -> tuple[str | None, object, int]:
    pair, end = _decode(text, at)
    match pair:
        case [str(key), value]:
            return key, value, end
    return None, pair, end


def _path(key: str | None, number: int | None) -> str:
    """Return the path of a member of the whole; `number` is its place, if that is an array."""
    if key is None:
        return f"$[{number}]"
    if number is not None:
        return f"$[{number}][1]"
    return f"$.{key}" if _PLAIN.fullmatch(key) else f"$[{json.dumps(key, ensure_ascii=False)}]"


def _skip(text: str, at: int) -> int:
    found = _SPACE.match(text, at)
    return at if found is None else found.end()


def _is_of_a_format(found: _Found) -> bool:
    """Tell whether a member looks like a person's, or a group's, however broken."""
    if found.key is None:
        return False
    if isinstance(found.value, dict) and not _FIELDS.isdisjoint(found.value):
        return True
    name, at, server = found.key.strip().partition("@")
    return bool(_DIGITS.fullmatch(name.removeprefix("+")) or (at and server in _SERVERS))


def _entry(found: _Found) -> ClientEntry:
    """Return one member, checked. Raises `_Wrong`."""
    if found.key is None:
        msg = "expecting a pair: [key, value]"
        raise _Wrong(msg)
    try:
        member = msgspec.convert(found.value, _Member)
    except msgspec.ValidationError as error:
        reason, _, at = str(error).partition(" - at `$")
        raise _Wrong(reason, at.removesuffix("`")) from None
    person = _person(found.key)
    labels = member.labels if member.labels is not None else member.whapi_labels
    chat = member.chat_id or (
        f"{person.phone}@s.whatsapp.net" if person.phone else f"{person.lid}@lid"
    )
    return ClientEntry(
        line=found.line,
        person=person,
        chat=chat,
        name=_text(member.name),
        user_name=_text(member.user_name),
        labels=None if labels is None else tuple(dict.fromkeys(_label(one) for one in labels)),
        thread=(member.thread_id or "").strip(),
        created_at=_instant("createdAt", member.created_at),
        last_activity=_instant("lastActivity", member.last_activity)
        or _instant("lastInteraction", member.last_interaction),
    )


def _person(key: str) -> Person:
    """Return who is meant by a key: a number, a JID or a lid. Raises `_Wrong`."""
    name, _, server = key.strip().partition("@")
    digits = name.removeprefix("+")
    if server in {"", "s.whatsapp.net", "c.us"} and _DIGITS.fullmatch(digits):
        return Person(phone=digits)
    if server == "lid" and name.isascii() and name.isdigit():
        return Person(lid=name)
    if server == "g.us":
        msg = "a group, not a person"
        raise _Wrong(msg)
    msg = "the key is neither a phone number with its country code nor a WhatsApp id"
    raise _Wrong(msg)


def _label(label: str | _Label) -> str:
    return label if isinstance(label, str) else label.name


def _text(text: str | None) -> str | None:
    return (text or "").strip() or None


def _instant(field: str, value: str | int | None) -> int | None:
    """Return µs of an ISO time with a zone, or of milliseconds since 1970. Raises `_Wrong`."""
    if value is None or value == "":
        return None
    try:
        if isinstance(value, int):
            moment = datetime.fromtimestamp(value / 1000, UTC)
        else:
            moment = datetime.fromisoformat(value)
    except (ValueError, OverflowError, OSError):
        msg = f"{field} is not a time: write it as 2025-07-28T10:30:00Z"
        raise _Wrong(msg, f".{field}") from None
    if moment.tzinfo is None:
        msg = f"{field} has no zone: nobody can say which instant is meant; write …Z or …-05:00"
        raise _Wrong(msg, f".{field}")
    if moment.astimezone(UTC).year < _FIRST_YEAR:
        msg = f"{field} is before there was WhatsApp"
        raise _Wrong(msg, f".{field}")
    return _micros(moment)


def _micros(moment: datetime) -> int:
    passed = moment - _EPOCH
    return (passed.days * 86_400 + passed.seconds) * _MICRO + passed.microseconds

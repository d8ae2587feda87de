"""WhatsApp's own export of one chat: a text file, written by the phone in its owner's habits.

    28/7/25, 10:30 - Ana: hola              Android, 24 hours
    7/28/25, 10:30 PM - Ana: hi             Android, 12 hours
    [28/07/2025, 10:30:15 p. m.] Ana: hola  iOS

Times are the phone's local ones and dates come in the order of its country; neither is said in the
file. A message may have many lines. Media are named, or said to be left out. Lines without an
author are WhatsApp's own.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import UTC, datetime, tzinfo
from itertools import pairwise
from typing import Final, Literal

import msgspec

from app.importing.records import ChatFile, ChatLine, LineKind, Rejected, Unreadable

DateOrder = Literal["dmy", "mdy", "ymd"]

_DATE: Final = r"(?P<a>\d{1,4})[./-](?P<b>\d{1,2})[./-](?P<c>\d{1,4})"
_TIME: Final = (
    r"(?P<hour>\d{1,2})[:.](?P<minute>\d\d)(?:[:.](?P<second>\d\d))?"
    r"(?:\s*(?P<half>[AaPp])\.?\s?[Mm]\.?)?"
)
_ANDROID: Final = re.compile(rf"{_DATE},?\s+{_TIME}\s+[-–]\s(?P<rest>.*)", re.DOTALL)
_IOS: Final = re.compile(rf"\[{_DATE},?\s+{_TIME}\]\s?(?P<rest>.*)", re.DOTALL)
_MARKS: Final = "\u200e\u200f\u202a\u202b\u202c\u202d\u202e\ufeff"
"""Invisible: they say in which direction text runs."""

_ATTACHED: Final = (
    re.compile(r"<(?:attached|adjunto|anexado): (?P<file>[^>]+)>(?P<caption>.*)", re.DOTALL),
    re.compile(
        r"(?P<file>[^\n]+?\.\w{1,5}) \((?:file attached|archivo adjunto|arquivo anexado)\)"
        r"(?P<caption>.*)",
        re.DOTALL,
    ),
)
_LEFT_OUT: Final = re.compile(
    r"<?(?:(?P<file>[^\n<>]+?\.\w{1,5})\b[^\n]*?\s)?"
    r"(?P<what>media|multimedia|archivo|mídia|arquivo de mídia|image|imagen|imagem|video|vídeo|"
    r"audio|áudio|sticker|gif|document|documento|contact card|tarjeta de contacto) "
    r"(?:omitted|omitid[oa]|ocult[oa])>?",
    re.IGNORECASE,
)
_LEFT_OUT_KINDS: Final[dict[str, LineKind]] = {
    "image": "image", "imagen": "image", "imagem": "image", "video": "video", "vídeo": "video",
    "audio": "audio", "áudio": "audio", "sticker": "sticker", "gif": "gif",
    "document": "document", "documento": "document", "contact card": "contact",
    "tarjeta de contacto": "contact",
}  # fmt: skip
_FILE_KINDS: Final[dict[str, LineKind]] = {
    "jpg": "image", "jpeg": "image", "png": "image", "heic": "image", "webp": "sticker",
    "mp4": "video", "mov": "video", "3gp": "video", "gif": "gif", "opus": "audio", "ogg": "audio",
    "mp3": "audio", "m4a": "audio", "aac": "audio", "vcf": "contact",
}  # fmt: skip
_EDITED: Final = re.compile(
    r"\s*<(?:This message was edited|Se editó este mensaje\.?|Mensagem editada)>$"
)
_ORDERS: Final[tuple[DateOrder, ...]] = ("dmy", "mdy")
"""Of dates that do not begin with the year."""
_TAKEN_BACK: Final = frozenset(
    (
        "This message was deleted", "You deleted this message", "Se eliminó este mensaje",
        "Eliminaste este mensaje", "Mensagem apagada", "Você apagou esta mensagem",
    )
)  # fmt: skip


class _Header(msgspec.Struct):
    """The first line of a message, and what follows it."""

    line: int
    date: tuple[int, int, int]
    time: tuple[int, int, int]
    rest: str


def read_chat(
    content: bytes, file: str, *, zone: tzinfo, date_order: DateOrder | None = None
) -> ChatFile:
    """Return the messages of an export, whose times are of `zone`.

    The order of day and month is taken from `date_order`, or from dates that can be read in one
    way only, or from what makes time go forward; if nothing tells, the day comes first and
    `assumed_order` says so. Raises `Unreadable` if no line looks like a message.
    """
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError:
        msg = f"{file} is not UTF-8 text"
        raise Unreadable(msg) from None
    headers: list[_Header] = []
    rejected: list[Rejected] = []
    for number, line in enumerate(text.splitlines(), start=1):
        header = _header(number, line)
        if header is not None:
            headers.append(header)
        elif headers:
            headers[-1].rest += "\n" + line
        elif line.strip(_MARKS + " \t"):
            rejected.append(Rejected(file, number, "a line before the first message"))
    if not headers:
        msg = f"{file}: no line begins as a message of a WhatsApp export does (date, time, author)"
        raise Unreadable(msg)
    order, assumed = (date_order, False) if date_order else _order(headers, file)
    lines: list[ChatLine] = []
    for header in headers:
        try:
            lines.append(_line(header, order, zone))
        except ValueError:
            reason = f"there is no such date or time (dates read as {order})"
            rejected.append(Rejected(file, header.line, reason))
    return ChatFile(file, tuple(lines), tuple(rejected), order, assumed)


def _header(number: int, line: str) -> _Header | None:
    bare = line.lstrip(_MARKS)
    found = (_IOS if bare.startswith("[") else _ANDROID).fullmatch(bare)
    if found is None:
        return None
    hour = int(found["hour"])
    half = (found["half"] or "").lower()
    if half:
        hour = hour % 12 + (12 if half == "p" else 0) if 1 <= hour <= 12 else 99  # noqa: PLR2004
    return _Header(
        number,
        (int(found["a"]), int(found["b"]), int(found["c"])),
        (hour, int(found["minute"]), int(found["second"] or 0)),
        found["rest"],
    )


def _order(headers: list[_Header], file: str) -> tuple[DateOrder, bool]:
    """Return the order of the dates, and whether it is only assumed. Raises `Unreadable`."""
    first = headers[0]
    if first.date[0] > 31 and _was(first, "ymd"):  # noqa: PLR2004 - no day of any month
        return "ymd", False
    told: dict[DateOrder, int] = {}
    """The first line that can be read in this order only: a date that never was tells nothing."""
    for header in headers:
        possible = [order for order in _ORDERS if _was(header, order)]
        if len(possible) == 1:
            told.setdefault(possible[0], header.line)
    if len(told) > 1:
        msg = (
            f"{file}: the date in line {told['dmy']} has the day first, the one in line "
            f"{told['mdy']} the month: say --date-order"
        )
        raise Unreadable(msg)
    if told:
        return next(iter(told)), False
    forward: list[DateOrder] = [o for o in _ORDERS if _goes_forward(headers, o)]
    return forward[0] if forward else "dmy", len(forward) != 1


def _was(header: _Header, order: DateOrder) -> bool:
    """Tell whether there was such a date and time."""
    try:
        datetime(*_ymd(header.date, order), *header.time, tzinfo=UTC)
    except ValueError:
        return False
    return True


def _goes_forward(headers: list[_Header], order: DateOrder) -> bool:
    real = [header for header in headers if _was(header, order)]  # the others are rejected
    moments = [(*_ymd(header.date, order), *header.time) for header in real]
    return all(before <= after for before, after in pairwise(moments))


def _ymd(date: tuple[int, int, int], order: DateOrder) -> tuple[int, int, int]:
    a, b, c = date
    year, month, day = {"dmy": (c, b, a), "mdy": (c, a, b), "ymd": (a, b, c)}[order]
    return (year + 2000 if year < 100 else year), month, day  # noqa: PLR2004 - two digits


def _line(header: _Header, order: DateOrder, zone: tzinfo) -> ChatLine:
    """Return one message. Raises `ValueError` if there is no such date or time."""
    moment = datetime(*_ymd(header.date, order), *header.time, tzinfo=zone)
    at = round(moment.astimezone(UTC).timestamp()) * 1_000_000
    author, text = _said(header.rest)
    if not author:
        return ChatLine(header.line, at, "", text, "system")
    kind, file_name, words = _what(text)
    return ChatLine(header.line, at, author, words, kind, file_name)


def _said(rest: str) -> tuple[str, str]:
    """Return (author, text); the author is empty for what WhatsApp itself says."""
    first, newline, more = rest.partition("\n")
    author, colon, text = first.partition(": ")
    if not colon and first.endswith(":"):
        author, colon, text = first[:-1], ":", ""
    if not colon:
        return "", _bare(rest)
    return _bare(author), text + newline + more


def _what(text: str) -> tuple[LineKind, str, str]:
    """Return (kind, name of the file, words)."""
    marked = text[:1] in _MARKS and text[:1] != ""
    bare = _EDITED.sub("", _bare(text))
    for pattern in _ATTACHED:
        found = pattern.fullmatch(bare)
        if found is not None:
            name = _bare(found["file"])
            return _kind_of(name), name, _bare(found["caption"])
    left_out = _LEFT_OUT.fullmatch(bare)
    if left_out is not None:
        kind = _LEFT_OUT_KINDS.get(left_out["what"].lower(), "media")
        return kind, _bare(left_out["file"] or ""), ""
    if bare.rstrip(".") in _TAKEN_BACK or marked:  # iOS marks what WhatsApp says in a person's name
        return "system", "", bare
    return "text", "", bare


def _kind_of(name: str) -> LineKind:
    return _FILE_KINDS.get(name.rpartition(".")[2].lower(), "document")


def _bare(text: str) -> str:
    return "".join(_without_marks(text)).strip()


def _without_marks(text: str) -> Iterator[str]:
    return (character for character in text if character not in _MARKS)

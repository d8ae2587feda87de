"""OpenAI's wire format, as far as we read it: server-sent events and response objects.

The official client's own models cost 3 ms a run; these few fields cost microseconds.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Sequence
from typing import Literal, cast

import msgspec

from app.conversation.ports import Answer, Running, Said, Usage
from app.gateways.http import safe_code

MAX_EVENT_BYTES = 8 * 1024 * 1024
"""A longer event is not an event of ours."""

MAX_INPUT_ITEMS = 20
"""What the conversation endpoints accept in one call."""

TERMINAL = frozenset({"completed", "incomplete", "failed", "cancelled"})


class _InputDetails(msgspec.Struct, frozen=True):
    cached_tokens: int | None = None


class _OutputDetails(msgspec.Struct, frozen=True):
    reasoning_tokens: int | None = None


class _Usage(msgspec.Struct, frozen=True):
    input_tokens: int
    output_tokens: int
    total_tokens: int
    input_tokens_details: _InputDetails | None = None
    output_tokens_details: _OutputDetails | None = None


class _Part(msgspec.Struct, frozen=True):
    type: str = ""
    text: str | None = None
    refusal: str | None = None


class _Item(msgspec.Struct, frozen=True):
    type: str = ""
    id: str | None = None
    content: tuple[_Part, ...] | str | None = None


class _Error(msgspec.Struct, frozen=True):
    code: str | None = None


class _Incomplete(msgspec.Struct, frozen=True):
    reason: str | None = None


class Response(msgspec.Struct, frozen=True):
    """A response object, wherever it appears."""

    id: str
    status: str = ""
    model: str | None = None
    output: tuple[_Item, ...] | None = None
    usage: _Usage | None = None
    error: _Error | None = None
    incomplete_details: _Incomplete | None = None


class Event(msgspec.Struct, frozen=True):
    """One event of a stream. `response` comes with those that carry a whole response object."""

    type: str
    response: Response | None = None
    code: str | None = None
    error: _Error | None = None


class Created(msgspec.Struct, frozen=True):
    """Anything new that has an id."""

    id: str


class ItemPage(msgspec.Struct, frozen=True):
    """One page of a conversation's items."""

    data: tuple[Created, ...]
    has_more: bool = False


class ErrorBody(msgspec.Struct, frozen=True):
    """What OpenAI says of a refused request. The message may quote the request."""

    message: str = ""
    code: str | int | None = None
    type: str | None = None
    param: str | None = None


class _ErrorEnvelope(msgspec.Struct, frozen=True):
    error: ErrorBody


_decode_event = msgspec.json.Decoder(Event).decode
_decode_envelope = msgspec.json.Decoder(_ErrorEnvelope).decode


def error_of(body: bytes) -> ErrorBody | None:
    """Return the error that OpenAI wrote, or None if somebody else (a proxy) answered."""
    try:
        return _decode_envelope(body).error
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None


def answer_of(response: Response) -> Answer | Running:
    """Return a response object in the port's words."""
    if response.status not in TERMINAL:
        return Running(response=response.id)
    items = response.output or ()
    return Answer(
        response=response.id,
        status=cast("Literal['completed', 'incomplete', 'failed', 'cancelled']", response.status),
        text=_text(items),
        usage=_usage(response.usage),
        model=response.model or "",
        last_item=next((item.id for item in reversed(items) if item.id), None),
        code=_code(response),
    )


def input_of(texts: Sequence[str]) -> list[dict[str, object]]:
    """Return texts as user messages: one each, several in one where they would be over 20."""
    size = -(-len(texts) // MAX_INPUT_ITEMS)
    if size > 1:
        texts = ["\n".join(texts[at : at + size]) for at in range(0, len(texts), size)]
    return [
        {"type": "message", "role": "user", "content": [{"type": "input_text", "text": text}]}
        for text in texts
    ]


def history_of(history: Sequence[Said]) -> Iterator[dict[str, object]]:
    """Yield the bodies that put what was said before into a conversation, in its order."""
    items = [
        {
            "type": "message",
            "role": said.role,
            "content": [
                {
                    "type": "input_text" if said.role == "user" else "output_text",
                    "text": said.text,
                }
            ],
        }
        for said in history
    ]
    for start in range(0, len(items), MAX_INPUT_ITEMS):
        yield {"items": items[start : start + MAX_INPUT_ITEMS]}


async def events_of(chunks: AsyncIterator[bytes]) -> AsyncGenerator[Event, None]:
    """Decode server-sent events from a body that arrives in pieces of any size.

    An event that the end of the body cuts is dropped. Raises `msgspec.DecodeError` for what is
    not JSON of this shape. Format: WHATWG HTML §9.2.6, as far as OpenAI uses it: only `data`
    fields matter, and `[DONE]` ends the stream.
    """
    rest = b""
    async for chunk in chunks:
        *blocks, rest = (rest + chunk).replace(b"\r\n", b"\n").split(b"\n\n")
        if len(rest) > MAX_EVENT_BYTES:
            msg = "an event is too long"
            raise msgspec.DecodeError(msg)
        for block in blocks:
            data = _data(block)
            if data == b"[DONE]":
                return
            if data:
                yield _decode_event(data)


def _data(block: bytes) -> bytes:
    lines = [line[5:].removeprefix(b" ") for line in block.split(b"\n") if line[:5] == b"data:"]
    return lines[0] if len(lines) == 1 else b"\n".join(lines)


def _text(items: Sequence[_Item]) -> str:
    messages = (
        "".join(part.text or part.refusal or "" for part in item.content)
        for item in items
        if item.type == "message" and isinstance(item.content, tuple)
    )
    return "\n\n".join(filter(None, messages))


def _usage(usage: _Usage | None) -> Usage | None:
    if usage is None:
        return None
    read, written = usage.input_tokens_details, usage.output_tokens_details
    return Usage(
        total=usage.total_tokens,
        input=usage.input_tokens,
        output=usage.output_tokens,
        cached=(read.cached_tokens or 0) if read else 0,
        reasoning=(written.reasoning_tokens or 0) if written else 0,
    )


def _code(response: Response) -> str:
    if response.error is not None:
        return safe_code(response.error.code, response.status)
    if response.incomplete_details is not None:
        return safe_code(response.incomplete_details.reason, response.status)
    return "" if response.status == "completed" else response.status

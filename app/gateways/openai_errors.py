"""What can go wrong with OpenAI, in the port's words.

Messages of the server and of the HTTP library may quote what a person wrote: they are read here
and go no further. What comes out is a class, a code that is a plain word, and a number.
"""

from __future__ import annotations

import httpx2
import msgspec
import openai

from app.conversation.ports import (
    ProviderError,
    RateLimited,
    Refused,
    ThreadBusy,
    ThreadGone,
    Unreachable,
)
from app.gateways.http import NOT_SENT, retry_after, safe_code
from app.gateways.openai_wire import ErrorBody, Event, error_of

FAILURES = (
    openai.OpenAIError,
    httpx2.HTTPError,
    httpx2.StreamError,
    TimeoutError,
    msgspec.DecodeError,
    UnicodeDecodeError,
)
"""All that a call may raise, whether from the client, the connection, the clock or the body."""

_TRY_LATER = frozenset({httpx2.codes.REQUEST_TIMEOUT, httpx2.codes.CONFLICT})
_CLEAR_5XX = frozenset({httpx2.codes.INTERNAL_SERVER_ERROR, httpx2.codes.SERVICE_UNAVAILABLE})
_LIMITS = frozenset({"insufficient_quota", "rate_limit_exceeded"})


def failure_of(
    error: Exception,
    *,
    billable: bool,
    gone: type[ProviderError] = Refused,
    in_stream: bool = False,
) -> ProviderError:
    """Return the port's error for one of `FAILURES`.

    `billable`: this call makes the model work. `gone`: what a 404 means here. `in_stream`: the
    answer had begun.
    """
    if isinstance(error, openai.APIStatusError):
        return _refusal(error.response, billable=billable, gone=gone)
    if isinstance(error, (msgspec.DecodeError, UnicodeDecodeError, httpx2.DecodingError)):
        return Unreachable("malformed", billed=billable)
    cause = error.__cause__ if isinstance(error, openai.APIConnectionError) else error
    if isinstance(cause, NOT_SENT):
        return Unreachable("connect")
    if isinstance(cause, (TimeoutError, httpx2.TimeoutException)):
        return Unreachable("timeout", billed=billable)
    return Unreachable("cut_stream" if in_stream else "disconnected", billed=billable)


def stream_failure(event: Event) -> ProviderError:
    """Return the port's error for an `error` event, which takes the place of the last word."""
    code = event.code or (event.error.code if event.error else None)
    if code == "conversation_locked":
        return ThreadBusy(code, billed=True)
    if code in _LIMITS:
        return RateLimited(code, billed=True)
    return Unreachable(safe_code(code, "stream_error"), billed=True)


def _refusal(
    answer: httpx2.Response, *, billable: bool, gone: type[ProviderError]
) -> ProviderError:
    error = error_of(answer.content)
    status = answer.status_code
    code = safe_code(error.code if error else None, f"http_{status}")
    wait = retry_after(answer.headers)
    if code == "conversation_locked":
        return ThreadBusy(code, retry_after=wait)
    if status == httpx2.codes.TOO_MANY_REQUESTS:
        return RateLimited(code, retry_after=wait)
    if status == httpx2.codes.NOT_FOUND:
        return gone("not_found") if _is_gone(error, gone) else Refused(code)
    if status >= httpx2.codes.INTERNAL_SERVER_ERROR or status in _TRY_LATER:
        # An error that OpenAI itself worded ended the request; one of a gateway in between
        # (502, 504, or no such body) says nothing about what happened behind it.
        clear = error is not None and (status in _CLEAR_5XX or status in _TRY_LATER)
        return Unreachable(code, retry_after=wait, billed=billable and not clear)
    return Refused(code)


def _is_gone(error: ErrorBody | None, gone: type[ProviderError]) -> bool:
    """Whether a 404 says that the thing is gone.

    One without OpenAI's body is a wrong address: taken for a lost conversation it would reset
    every thread there is. And a run names other things that can be missing: the model, a store.
    """
    if error is None or gone is Refused:
        return False
    if gone is not ThreadGone:
        return True
    about = f"{error.message} {error.code} {error.param}".lower()
    return "conversation" in about and not about.startswith("item")

"""OpenAI as the turn's model provider: conversations and responses, one attempt a call.

The official client is the transport (authentication, headers, pool); bodies are read with msgspec
(`openai_wire`), since its models and parameter checks cost 3 ms a run.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Awaitable, Sequence
from typing import Literal, TypeVar
from urllib.parse import quote

import httpx2
import msgspec
import openai
import structlog

from app.conversation.ports import (
    Answer,
    ProviderError,
    RateLimited,
    Refused,
    ResponseGone,
    Running,
    Said,
    Submitted,
    ThreadGone,
    Unreachable,
)
from app.gateways import openai_wire as wire
from app.gateways.http import http_client
from app.gateways.openai_errors import FAILURES, failure_of, stream_failure

T = TypeVar("T")

FIRST_POLL_SECONDS = 0.25
MAX_POLL_SECONDS = 2.0
DRAIN_SECONDS = 0.1
PAGE = 100

# The client's own marker: hand the response over before its body is read.
_UNREAD = {"X-Stainless-Raw-Response": "stream"}

_log = structlog.get_logger(__name__)


class OpenAISettings(msgspec.Struct, frozen=True, kw_only=True):
    """How responses are asked for. The API key is not here, so that settings can be shown."""

    model: str
    instructions: str = ""
    base_url: str = "https://api.openai.com/v1"
    mode: Literal["background", "stream"] = "background"
    """`background`: a run outlives its connection and can be cancelled; `stream`: it does not."""
    run_seconds: float = 45.0
    """From the start of a run to its answer, everything included."""
    call_seconds: float = 10.0
    """The same for each of the other calls."""
    truncation: Literal["auto", "disabled"] = "auto"
    compact_threshold: int | None = None
    """Tokens of context above which the provider compacts the conversation; None: never."""
    temperature: float | None = None
    max_output_tokens: int | None = None
    connections: int = 100
    """Above the number of runs at once (75), so that recovery and clean-up do not wait."""


class OpenAIProvider:
    """`ModelProvider` on the Responses and Conversations APIs."""

    def __init__(self, settings: OpenAISettings, *, api_key: str) -> None:
        self._settings = settings
        total = max(settings.run_seconds, settings.call_seconds)
        http = http_client(settings.base_url, total=total, connections=settings.connections)
        self._client = openai.AsyncOpenAI(
            api_key=api_key,
            base_url=settings.base_url,
            max_retries=0,
            timeout=http.timeout,
            http_client=http,
        )
        self._fixed = _fixed_body(settings)

    async def close(self) -> None:
        """Close the connections. Idempotent; the provider is of no use afterwards."""
        await self._client.close()

    async def start_thread(self, metadata: dict[str, str]) -> str:
        """Create an empty conversation and return its id."""
        asked = self._client.post(
            "/conversations", cast_to=httpx2.Response, body={"metadata": metadata}
        )
        return (await self._decoded(asked, wire.Created)).id

    async def fill_thread(self, thread: str, history: Sequence[Said]) -> str | None:
        """Put what was said before into a conversation; return the id of its newest item."""
        path = f"/conversations/{_quoted(thread)}/items"
        newest: str | None = None
        for body in wire.history_of(history):
            asked = self._client.post(path, cast_to=httpx2.Response, body=body)
            page = await self._decoded(asked, wire.ItemPage, gone=ThreadGone)
            newest = page.data[-1].id if page.data else newest
        return newest

    async def run(
        self, *, thread: str, texts: tuple[str, ...], run: str, user: str
    ) -> AsyncGenerator[Submitted | Answer, None]:
        """Answer `texts` in the conversation, as the port says.

        A background run whose stream ends early is followed by polling, within the same total.
        """
        # The time-out is around each wait and never around a `yield`: there it would cancel the
        # caller, in whatever the caller is doing.
        deadline = asyncio.get_running_loop().time() + self._settings.run_seconds
        body = {
            **self._fixed,
            "conversation": thread,
            "input": wire.input_of(texts),
            "metadata": {"run": run},
            "safety_identifier": user,
        }
        reply = await self._open(body, deadline)
        response = ""
        async with (
            contextlib.aclosing(reply),
            contextlib.aclosing(wire.events_of(reply.aiter_bytes())) as events,
        ):
            while True:
                step = await _step(events, deadline)
                if isinstance(step, ProviderError):
                    break
                if step is None:
                    continue
                if not response:
                    response = step.id
                    yield Submitted(response=response)
                outcome = wire.answer_of(step)
                if isinstance(outcome, Answer):
                    await _drain(events)
                    yield outcome
                    return
        if not response or self._settings.mode == "stream":
            raise step
        _log.info("run_followed_by_polling", category=step.code)
        yield await self._follow(response, deadline, step)

    async def retrieve(self, response: str) -> Answer | Running:
        """Return what became of a response. Raises `ResponseGone`."""
        asked = self._client.get(f"/responses/{_quoted(response)}", cast_to=httpx2.Response)
        return wire.answer_of(await self._decoded(asked, wire.Response, gone=ResponseGone))

    async def cancel(self, response: str) -> None:
        """Cancel a background response; one that cannot be cancelled is left alone."""
        try:
            async with asyncio.timeout(self._settings.call_seconds):
                await self._client.post(
                    f"/responses/{_quoted(response)}/cancel", cast_to=httpx2.Response, body={}
                )
        except (openai.BadRequestError, openai.NotFoundError) as error:
            # Not of the background, over already, or deleted.
            _log.info("cancel_without_effect", category=f"http_{error.status_code}")
        except FAILURES as error:
            raise failure_of(error, billable=False) from None

    async def items_after(self, thread: str, item: str | None) -> tuple[str, ...]:
        """Return ids of the conversation's items after `item` (all if None), oldest first.

        Raises `ThreadGone`; `Refused` if the conversation does not hold `item` (any more).
        """
        path = f"/conversations/{_quoted(thread)}/items"
        found: list[str] = []
        after = item
        while True:
            query: dict[str, object] = {"order": "asc", "limit": PAGE}
            if after is not None:
                query["after"] = after
            asked = self._client.get(path, cast_to=httpx2.Response, options={"params": query})
            page = await self._decoded(asked, wire.ItemPage, gone=ThreadGone)
            found += [one.id for one in page.data]
            if not page.has_more or not page.data:
                return tuple(found)
            after = page.data[-1].id

    async def is_empty(self, thread: str) -> bool:
        """Tell whether the conversation holds no item at all. Raises `ThreadGone`."""
        path = f"/conversations/{_quoted(thread)}/items"
        query: dict[str, object] = {"limit": 1}
        asked = self._client.get(path, cast_to=httpx2.Response, options={"params": query})
        return not (await self._decoded(asked, wire.ItemPage, gone=ThreadGone)).data

    async def delete_item(self, thread: str, item: str) -> None:
        """Delete one item; one that is gone already, or whose conversation is, is success."""
        path = f"/conversations/{_quoted(thread)}/items/{_quoted(item)}"
        asked = self._client.delete(path, cast_to=httpx2.Response)
        with contextlib.suppress(ResponseGone):
            await self._decoded(asked, wire.Created, gone=ResponseGone)

    async def _open(self, body: dict[str, object], deadline: float) -> httpx2.Response:
        """Send a run and return its stream, unread."""
        try:
            async with asyncio.timeout_at(deadline):
                return await self._client.post(
                    "/responses", cast_to=httpx2.Response, body=body, options={"headers": _UNREAD}
                )
        except FAILURES as error:
            raise failure_of(error, billable=True, gone=ThreadGone) from None

    async def _follow(self, response: str, deadline: float, cause: ProviderError) -> Answer:
        """Poll a background response to its end. Raises Unreachable, billed, if it has none."""
        clock = asyncio.get_running_loop().time
        pause = FIRST_POLL_SECONDS
        while True:
            wait = pause
            try:
                async with asyncio.timeout_at(deadline):
                    outcome = await self.retrieve(response)
            except (ResponseGone, Refused):
                raise cause from None
            except RateLimited as busy:
                wait = max(wait, busy.retry_after or 0.0)
            except (Unreachable, TimeoutError) as error:  # it may be back before the deadline
                _log.info("RESPONSE_POLL_FAILED", error=type(error).__name__)
            else:
                if isinstance(outcome, Answer):
                    return outcome
            if clock() + wait >= deadline:
                code = "timeout"
                raise Unreachable(code, billed=True)
            await asyncio.sleep(wait)
            pause = min(2 * pause, MAX_POLL_SECONDS)

    async def _decoded(
        self,
        asked: Awaitable[httpx2.Response],
        shape: type[T],
        *,
        gone: type[ProviderError] = Refused,
    ) -> T:
        """Await one call and decode its answer; a 404 becomes `gone`. Nothing here is billed."""
        try:
            async with asyncio.timeout(self._settings.call_seconds):
                answer = await asked
            return msgspec.json.decode(answer.content, type=shape)
        except FAILURES as error:
            raise failure_of(error, billable=False, gone=gone) from None


def _fixed_body(settings: OpenAISettings) -> dict[str, object]:
    """Return the part of a run's request that is the same for all."""
    body: dict[str, object] = {
        "model": settings.model,
        "stream": True,
        "store": True,
        "background": settings.mode == "background",
        "truncation": settings.truncation,
        "instructions": settings.instructions or None,
        "temperature": settings.temperature,
        "max_output_tokens": settings.max_output_tokens,
    }
    if settings.compact_threshold is not None:
        body["context_management"] = [
            {"type": "compaction", "compact_threshold": settings.compact_threshold}
        ]
    return {key: value for key, value in body.items() if value is not None}


async def _step(
    events: AsyncGenerator[wire.Event, None], deadline: float
) -> wire.Response | ProviderError | None:
    """Return the response object of the next event, None if it has none, or why there is none."""
    try:
        async with asyncio.timeout_at(deadline):
            event = await anext(events, None)
    except FAILURES as error:
        return failure_of(error, billable=True, in_stream=True)
    if event is None:
        return Unreachable("cut_stream", billed=True)
    if event.type == "error":
        return stream_failure(event)
    return event.response


async def _drain(events: AsyncGenerator[wire.Event, None]) -> None:
    """Read what follows the last event, which gives the connection back to the pool."""
    with contextlib.suppress(*FAILURES):
        async with asyncio.timeout(DRAIN_SECONDS):
            async for _ in events:
                pass


def _quoted(id_: str) -> str:
    return quote(id_, safe="")

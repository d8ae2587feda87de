"""An OpenAI-compatible server: conversations, responses, models, audio, and its own account."""

import random
from email import message_from_bytes
from typing import cast

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from app.simulators.audio import silence
from app.simulators.faults import Fault, fault_of
from app.simulators.openai_input import (
    CreateConversation,
    CreateItems,
    CreateResponse,
    UpdateConversation,
    checked_count,
    checked_metadata,
    items_of,
)
from app.simulators.openai_runs import Pace, Runs, locked
from app.simulators.openai_state import OpenAIState
from app.simulators.openai_stream import EventStream
from app.simulators.vendor import Vendor
from app.simulators.web import (
    Handler,
    Json,
    VendorError,
    choice,
    number,
    read_body,
    read_json,
    reply,
    require_bearer,
    wait_seconds,
)

MODELS: dict[str, str | None] = {
    "gpt-5.4": None,
    "gpt-5.4-mini": None,
    "gpt-4o": "2026-12-31",
    "gpt-4o-mini-transcribe": None,
    "gpt-4o-mini-tts": None,
}
"""What `GET /v1/models` shows, and when each will be shut down. Others are accepted too…"""

RETIRED = frozenset({"gpt-3.5-turbo"})
"""…but these, which answer 404 `model_not_found`."""


def error_body(error: VendorError) -> Json:
    """Return the vendor's error object."""
    kinds = {401: "authentication_error", 429: "rate_limit_error"}
    kind = "server_error" if error.status >= 500 else kinds.get(error.status)  # noqa: PLR2004
    return {
        "error": {
            "message": error.message,
            "type": kind or "invalid_request_error",
            "param": error.param,
            "code": error.code,
        }
    }


class OpenAISimulator(Vendor):
    """The server, as an ASGI application.

    `key`: the only bearer token accepted; without it, any. `seed`: makes ids, latencies and
    fault rates repeatable. `state`: what an earlier one remembered.
    """

    def __init__(
        self,
        *,
        key: str | None = None,
        seed: int | None = None,
        pace: Pace | None = None,
        state: OpenAIState | None = None,
    ) -> None:
        self.state = state or OpenAIState.fresh(seed)
        rng = random.Random(seed)
        self.runs = Runs(self.state, pace or Pace(), rng)
        self._key = key
        super().__init__(error_body, rng)

    def hang_up(self) -> None:
        """Answer every long-poll now: the server is about to stop."""
        self.runs.changed.end()

    async def _end(self) -> None:
        await self.runs.close()

    def _routes(self) -> list[Route]:
        conversations = "/v1/conversations"
        one, items = f"{conversations}/{{id}}", f"{conversations}/{{id}}/items"
        vendor: list[tuple[str, str, Handler]] = [
            ("POST", "/v1/responses", self.create_response),
            ("GET", "/v1/responses/{id}", self.retrieve_response),
            ("DELETE", "/v1/responses/{id}", self.delete_response),
            ("POST", "/v1/responses/{id}/cancel", self.cancel_response),
            ("POST", conversations, self.create_conversation),
            ("GET", one, self.retrieve_conversation),
            ("POST", one, self.update_conversation),
            ("DELETE", one, self.delete_conversation),
            ("POST", items, self.create_items),
            ("GET", items, self.list_items),
            ("DELETE", f"{items}/{{item}}", self.delete_item),
            ("GET", "/v1/models", self.list_models),
            ("GET", "/v1/models/{id}", self.retrieve_model),
            ("POST", "/v1/audio/transcriptions", self.transcribe),
            ("POST", "/v1/audio/speech", self.speak),
        ]
        own: list[tuple[str, str, Handler]] = [
            ("GET", "/_sim/account", self.account),
            ("GET", "/_sim/wait", self.wait),
            ("GET", "/_sim/latency", self.show_pace),
            ("POST", "/_sim/latency", self.set_pace),
            ("POST", "/_sim/usage", self.set_totals),
            ("POST", "/_sim/conversations/{id}/lose", self.lose),
        ]
        return [
            *(Route(path, self._checked(do), methods=[verb]) for verb, path, do in vendor),
            *(Route(path, do, methods=[verb]) for verb, path, do in own),
        ]

    def _checked(self, handler: Handler) -> Handler:
        """Add to a handler what every path of the vendor's does first."""

        async def checked(request: Request) -> Response:
            require_bearer(request, self._key)
            fault = fault_of(request)
            if fault is not None and fault.kind == "locked":
                raise locked()
            if fault is not None and fault.kind == "conversation_lost":
                await self._lose_for(fault, request)
            return await handler(request)

        return checked

    async def _lose_for(self, fault: Fault, request: Request) -> None:
        """Lose the conversation that a fault names, or the one that the request is about."""
        lost = fault.conversation
        if lost is None and request.url.path.startswith("/v1/conversations/"):
            lost = request.path_params["id"]
        if lost is not None:
            self.state.conversations.pop(lost, None)

    async def create_response(self, request: Request) -> Response:
        """`POST /v1/responses`."""
        asked = await read_json(request, CreateResponse)
        fault = fault_of(request)
        if fault is not None and fault.kind == "conversation_lost" and not fault.conversation:
            self.state.conversations.pop(asked.conversation_id() or "", None)
        if asked.model in RETIRED:
            msg = f"The model '{asked.model}' has been shut down."
            raise VendorError(404, msg, code="model_not_found", param="model")
        run = self.runs.create(asked, fault)
        if asked.stream:
            self.runs.start(run)
            # EventStream is an ASGI answer; Starlette asks for nothing more than calling it.
            return cast("Response", EventStream(self.runs, run, cut=run.struck_by("cut_stream")))
        if asked.background:
            answer = reply(run.body)
            self.runs.start(run)
            return answer
        await self.runs.play(run)
        return reply(run.body)

    async def retrieve_response(self, request: Request) -> Response:
        """`GET /v1/responses/{id}`, with `stream=true&starting_after=N` for background streams."""
        body = self.state.response(request.path_params["id"])
        if request.query_params.get("stream") not in {"true", "1"}:
            return reply(body)
        run = self.runs.find(body.id)
        if run is None or run.events is None or not body.background:
            msg = "This response cannot be streamed: it was not created with background and stream."
            raise VendorError(400, msg, code="invalid_value", param="stream")
        after = int(number(request, "starting_after", -1, -1, 1e9))
        fault = fault_of(request)
        cut = fault if fault is not None and fault.kind == "cut_stream" else None
        return cast("Response", EventStream(self.runs, run, after=after, cut=cut))

    async def cancel_response(self, request: Request) -> Response:
        """`POST /v1/responses/{id}/cancel`: background responses only; may be repeated."""
        body = self.state.response(request.path_params["id"])
        if not body.background:
            msg = "Cannot cancel a synchronous response."
            raise VendorError(400, msg, code="invalid_value")
        run = self.runs.live.get(body.id)
        if run is not None:
            self.runs.cancel(run)
        return reply(body)

    async def delete_response(self, request: Request) -> Response:
        """`DELETE /v1/responses/{id}`; the account keeps its line."""
        body = self.state.response(request.path_params["id"])
        del self.state.responses[body.id]
        return reply({"id": body.id, "object": "response", "deleted": True})

    async def create_conversation(self, request: Request) -> Response:
        """`POST /v1/conversations`."""
        asked = await read_json(request, CreateConversation)
        given = checked_count(asked.items or [])
        metadata = checked_metadata(asked.metadata)
        items = items_of(self.state, given, "items")
        made = self.state.new_conversation(metadata)
        made.add(items)
        return reply(made.shown())

    async def retrieve_conversation(self, request: Request) -> Response:
        """`GET /v1/conversations/{id}`."""
        return reply(self.state.conversation(request.path_params["id"]).shown())

    async def update_conversation(self, request: Request) -> Response:
        """`POST /v1/conversations/{id}`: replaces the metadata."""
        found = self.state.conversation(request.path_params["id"])
        asked = await read_json(request, UpdateConversation)
        found.metadata = checked_metadata(asked.metadata)
        return reply(found.shown())

    async def delete_conversation(self, request: Request) -> Response:
        """`DELETE /v1/conversations/{id}`."""
        found = self.state.conversation(request.path_params["id"])
        del self.state.conversations[found.id]
        return reply({"id": found.id, "object": "conversation.deleted", "deleted": True})

    async def create_items(self, request: Request) -> Response:
        """`POST /v1/conversations/{id}/items`: at most 20."""
        found = self.state.conversation(request.path_params["id"])
        asked = await read_json(request, CreateItems)
        given = checked_count(asked.items)
        if found.active is not None:
            raise locked()
        items = items_of(self.state, given, "items")
        found.add(items)
        return reply(_page(items, more=False))

    async def list_items(self, request: Request) -> Response:
        """`GET /v1/conversations/{id}/items?order=desc&limit=20&after=ID`."""
        found = self.state.conversation(request.path_params["id"])
        order = choice(request, "order", "desc", ("asc", "desc"))
        limit = int(number(request, "limit", 20, 1, 100))
        after = request.query_params.get("after")
        items = found.items if order == "asc" else found.items[::-1]
        start = 0
        if after is not None:
            places = (n for n, item in enumerate(items) if item["id"] == after)
            start = next(places, len(items)) + 1
            if start > len(items):
                raise VendorError(404, f"Item with id '{after}' not found.", param="after")
        return reply(_page(items[start : start + limit], more=start + limit < len(items)))

    async def delete_item(self, request: Request) -> Response:
        """`DELETE /v1/conversations/{id}/items/{item}`; the answer is the conversation."""
        found = self.state.conversation(request.path_params["id"])
        item_id = request.path_params["item"]
        kept = [item for item in found.items if item["id"] != item_id]
        if len(kept) == len(found.items):
            raise VendorError(404, f"Item with id '{item_id}' not found.")
        found.items, found.tokens = [], 0
        found.add(kept)
        return reply(found.shown())

    async def list_models(self, _: Request) -> Response:
        """`GET /v1/models`."""
        return reply({"object": "list", "data": [_model(name) for name in MODELS]})

    async def retrieve_model(self, request: Request) -> Response:
        """`GET /v1/models/{id}`."""
        name = request.path_params["id"]
        if name not in MODELS:
            msg = f"The model '{name}' does not exist"
            raise VendorError(404, msg, code="model_not_found", param="model")
        return reply(_model(name))

    async def transcribe(self, request: Request) -> Response:
        """`POST /v1/audio/transcriptions`: says which file it was given, and how large."""
        body = await read_body(request)
        head = f"Content-Type: {request.headers.get('content-type', '')}\r\n\r\n"
        form = message_from_bytes(head.encode() + body)
        for part in form.walk():
            name = part.get_filename()
            if name is not None:
                sound = cast("bytes", part.get_payload(decode=True))
                text = f"Transcripción de {name} ({len(sound)} bytes)"
                usage = {"type": "duration", "seconds": max(1, len(sound) // 4000)}
                return reply({"text": text, "usage": usage})
        msg = "Missing required parameter: 'file'."
        raise VendorError(400, msg, code="missing_required_parameter", param="file")

    async def speak(self, request: Request) -> Response:
        """`POST /v1/audio/speech`: silence, as Ogg Opus whatever the format asked for."""
        asked = await read_json(request, Json)
        text = asked.get("input")
        if not isinstance(text, str) or not 0 < len(text) <= 4096:  # noqa: PLR2004 - documented
            msg = "Invalid 'input': expected a text of 1 to 4096 characters."
            raise VendorError(400, msg, code="invalid_value", param="input")
        return Response(silence(seconds=min(60.0, len(text) / 15)), media_type="audio/ogg")

    async def account(self, request: Request) -> Response:
        """`GET /_sim/account`: every response and its usage; `?responses=0` for the sums only."""
        entries = list(self.state.entries.values())
        if request.query_params.get("responses") == "0":
            entries = []
        return reply(
            {
                "responses": entries,
                "reported": self.state.reported,
                "active": len(self.runs.live),
                "conversations": len(self.state.conversations),
            }
        )

    async def wait(self, request: Request) -> Response:
        """`GET /_sim/wait?active=N&billed=N&timeout=S`: until there are at least so many.

        With `idle=1`: until no response is active.
        """
        active = number(request, "active", 0, 0, 1e9)
        billed = number(request, "billed", 0, 0, 1e9)
        idle = request.query_params.get("idle") == "1"

        def holds() -> bool:
            if idle and self.runs.live:
                return False
            return len(self.runs.live) >= active and self.state.reported.responses >= billed

        met = await self.runs.changed.until(holds, wait_seconds(request))
        return reply(
            {
                "met": met,
                "active": list(self.runs.live),
                "billed": self.state.reported.responses,
            }
        )

    async def show_pace(self, _: Request) -> Response:
        """`GET /_sim/latency`."""
        return reply(self.runs.pace)

    async def set_pace(self, request: Request) -> Response:
        """`POST /_sim/latency {mean_ms, spread, bill_cancelled}`: from the next response on."""
        self.runs.pace = await read_json(request, Pace)
        return reply(self.runs.pace)

    async def set_totals(self, request: Request) -> Response:
        """`POST /_sim/usage [600, 150]`: the total tokens that the next responses report."""
        self.runs.totals = await read_json(request, list[int])
        return reply({"totals": self.runs.totals})

    async def lose(self, request: Request) -> Response:
        """`POST /_sim/conversations/{id}/lose`: it answers 404 from now on."""
        found = self.state.conversation(request.path_params["id"])
        del self.state.conversations[found.id]
        return reply({"lost": found.id})


def _page(items: list[Json], *, more: bool) -> Json:
    return {
        "object": "list",
        "data": items,
        "first_id": items[0]["id"] if items else None,
        "last_id": items[-1]["id"] if items else None,
        "has_more": more,
    }


def _model(name: str) -> Json:
    return {
        "id": name,
        "object": "model",
        "created": 1_764_547_200,
        "owned_by": "simulator",
        "shutdown_date": MODELS[name],
    }

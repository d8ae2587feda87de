"""The OpenAI simulator at work: responses from queued to their last status, and their events."""

import asyncio
import random
import time
from collections import OrderedDict
from collections.abc import Sequence

import msgspec

from app.simulators.bounded import forget_oldest
from app.simulators.faults import Fault
from app.simulators.openai_input import (
    CreateResponse,
    attachments,
    checked_metadata,
    items_of,
    user_texts,
)
from app.simulators.openai_state import (
    MAX_ENTRIES,
    MAX_RESPONSES,
    TERMINAL,
    Conversation,
    ConversationRef,
    Entry,
    OpenAIState,
    ResponseBody,
    item_tokens,
    tokens_of,
    usage_of,
)
from app.simulators.pulse import Pulse
from app.simulators.web import Json, VendorError

MAX_REPLAYS = 500
"""How many background streams can be attached to again after they have ended."""

MAX_DELTAS = 16

_encode = msgspec.json.Encoder().encode


class Pace(msgspec.Struct, forbid_unknown_fields=True):
    """How long answers take, in the shape of `POST /_sim/latency`."""

    mean_ms: float = 0.0
    spread: float = 0.0
    """0 = always the mean; 0.5 = evenly between half and one and a half times the mean."""
    bill_cancelled: bool = True
    """Whether a cancelled response reports what it used so far."""

    def seconds(self, rng: random.Random) -> float:
        """Draw the duration of one answer."""
        if self.mean_ms <= 0:
            return 0.0
        return max(0.0, self.mean_ms / 1000 * (1 + self.spread * rng.uniform(-1, 1)))


class Run:
    """A response that is being made: what goes in, what comes out, and who watches."""

    def __init__(  # noqa: PLR0913 - the parts of one run, put together in one place
        self,
        body: ResponseBody,
        entry: Entry,
        *,
        conversation: Conversation | None,
        items: list[Json],
        context: int,
        streamed: bool,
        fault: Fault | None,
    ) -> None:
        self.body = body
        self.entry = entry
        self.conversation = conversation
        self.items = items
        self.context = context
        self.fault = fault
        self.events: list[bytes] | None = [] if streamed else None
        self.watchers = Pulse()
        self.written = ""
        self.task: asyncio.Task[None] | None = None

    @property
    def over(self) -> bool:
        """Whether nothing more will happen to it."""
        return self.body.status in TERMINAL

    def struck_by(self, kind: str) -> Fault | None:
        """Return the fault that this run has to play, if it is of this kind."""
        return self.fault if self.fault is not None and self.fault.kind == kind else None

    def say(self, kind: str, fields: Json) -> None:
        """Add an event to the stream, if anybody may watch it."""
        if self.events is None:
            return
        event = _encode({"type": kind, "sequence_number": len(self.events), **fields})
        self.events.append(b"event: %b\ndata: %b\n\n" % (kind.encode(), event))
        self.watchers.beat()

    def say_status(self, kind: str) -> None:
        """Add an event that carries the whole response."""
        if self.events is not None:
            self.say(kind, {"response": self.body})


class Runs:
    """Makes, plays, cancels and finds responses."""

    def __init__(self, state: OpenAIState, pace: Pace, rng: random.Random) -> None:
        self._state = state
        self.pace = pace
        self._rng = rng
        self.live: dict[str, Run] = {}
        self.totals: list[int] = []
        """What the next responses report, if a test says so."""
        self._replays: OrderedDict[str, Run] = OrderedDict()
        self.changed = Pulse()

    def create(self, asked: CreateResponse, fault: Fault | None) -> Run:
        """Check a request and take its conversation's lock. Raises VendorError."""
        _check(asked)
        context, conversation = self._context(asked)
        items = items_of(self._state, asked.input, "input")
        texts = user_texts(items)
        run_id = self._state.new_id("resp")
        metadata = checked_metadata(asked.metadata)
        background = bool(asked.background)
        now = time.time()
        body = ResponseBody(
            id=run_id,
            created_at=int(now),
            status="queued" if background else "in_progress",
            background=background,
            conversation=ConversationRef(conversation.id) if conversation else None,
            instructions=asked.instructions,
            max_output_tokens=asked.max_output_tokens,
            metadata=metadata,
            model=asked.model,
            output=[],
            previous_response_id=asked.previous_response_id,
            prompt_cache_key=asked.prompt_cache_key,
            safety_identifier=asked.safety_identifier,
            store=asked.store is not False,
            tools=asked.tools or [],
            truncation=asked.truncation or "disabled",
        )
        entry = Entry(
            run_id,
            conversation.id if conversation else None,
            metadata,
            asked.model,
            background,
            body.status,
            None,
            texts,
            now,
        )
        run = Run(
            body,
            entry,
            conversation=conversation,
            items=items,
            context=context,
            streamed=bool(asked.stream),
            fault=fault,
        )
        self._remember(run)
        return run

    def find(self, response_id: str) -> Run | None:
        """Return a run that is still going on, or whose events can be read again."""
        return self.live.get(response_id) or self._replays.get(response_id)

    def start(self, run: Run) -> None:
        """Play a run on its own: it goes on whoever watches."""
        run.task = asyncio.create_task(self.play(run))

    async def play(self, run: Run) -> None:
        """Take a run to its end."""
        seconds = self.pace.seconds(self._rng)
        run.say_status("response.created")
        if run.body.background:
            run.say_status("response.queued")
        run.body.status = run.entry.status = "in_progress"
        run.say_status("response.in_progress")
        self.changed.beat()
        if run.struck_by("fail"):
            await _pause(seconds)
            self._fail(run)
            return
        text, stopped = _answer(run)
        if run.events is None:
            await _pause(seconds)
            run.written = text
        else:
            await self._stream(run, text, seconds)
        self._finish(run, "incomplete" if stopped else "completed")

    def cancel(self, run: Run) -> None:
        """Stop a run. What it used so far is billed, if `pace.bill_cancelled`."""
        if run.over:
            return
        if run.task is not None:
            run.task.cancel()
        if self.pace.bill_cancelled:
            self._bill(run)
        self._close(run, "cancelled")

    def unbill(self, run: Run) -> None:
        """End a run whose stream was cut for good: nothing of it is kept or billed."""
        if run.over:
            return
        if run.task is not None:
            run.task.cancel()
        run.body.error = {"code": "server_error", "message": "The stream was cut."}
        self._close(run, "failed")

    async def close(self) -> None:
        """Stop working, as a server does that goes down: nothing more is answered or billed."""
        tasks = [run.task for run in self.live.values() if run.task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _stream(self, run: Run, text: str, seconds: float) -> None:
        pieces = _pieces(text)
        slow = run.struck_by("slow_stream")
        beat = slow.seconds if slow else seconds / (len(pieces) + 1)
        item_id = run.body.id.replace("resp_", "msg_")
        place: Json = {"item_id": item_id, "output_index": 0, "content_index": 0}
        await _pause(beat)
        opened = _message(item_id, None, "in_progress")
        run.say("response.output_item.added", {"output_index": 0, "item": opened})
        run.say("response.content_part.added", {**place, "part": _text_part("")})
        for piece in pieces:
            run.written += piece
            run.say("response.output_text.delta", {**place, "delta": piece, "logprobs": []})
            await _pause(beat)
        run.say("response.output_text.done", {**place, "text": text, "logprobs": []})
        run.say("response.content_part.done", {**place, "part": _text_part(text)})

    def _finish(self, run: Run, status: str) -> None:
        cut = run.struck_by("cut_stream")
        if cut is not None and not cut.bill:
            self._unbill_finished(run)
            return
        item_status = "completed" if status == "completed" else "incomplete"
        message = _message(run.body.id.replace("resp_", "msg_"), run.written, item_status)
        run.say("response.output_item.done", {"output_index": 0, "item": message})
        run.body.output = [message]
        if status == "incomplete":
            run.body.incomplete_details = {"reason": "max_output_tokens"}
        self._bill(run)
        if run.conversation is not None:
            run.conversation.add([*run.items, message])
        self._close(run, status)

    def _unbill_finished(self, run: Run) -> None:
        """End a run at its last step as if its stream had been cut before."""
        run.task = None
        self.unbill(run)

    def _fail(self, run: Run) -> None:
        fault = run.fault
        run.body.error = {
            "code": (fault and fault.code) or "server_error",
            "message": (fault and fault.message) or "The model failed to answer.",
        }
        if fault is None or fault.bill:
            self._bill(run)
        self._close(run, "failed")

    def _bill(self, run: Run) -> None:
        sent = sum(map(item_tokens, run.items)) + tokens_of(run.body.instructions or "")
        usage = usage_of(run.context, sent, tokens_of(run.written))
        if self.totals:
            usage.total_tokens = self.totals.pop(0)
            usage.input_tokens = usage.total_tokens - usage.output_tokens
        run.body.usage = usage
        self._state.bill(run.entry, usage)

    def _close(self, run: Run, status: str) -> None:
        run.body.status = run.entry.status = status
        run.body.completed_at = int(time.time()) if status == "completed" else None
        if run.conversation is not None and run.conversation.active == run.body.id:
            run.conversation.active = None
        self.live.pop(run.body.id, None)
        if run.events is not None and run.body.background:
            self._replays[run.body.id] = run
            if len(self._replays) > MAX_REPLAYS:
                self._replays.popitem(last=False)
        if status != "cancelled":
            run.say_status(f"response.{status}")
        run.watchers.beat()
        self.changed.beat()

    def _context(self, asked: CreateResponse) -> tuple[int, Conversation | None]:
        """Return the tokens that come before the input, and the conversation, not locked."""
        if asked.previous_response_id is not None:
            previous = self._state.responses.get(asked.previous_response_id)
            if previous is None:
                msg = f"Previous response with id '{asked.previous_response_id}' not found."
                code = "previous_response_not_found"
                raise VendorError(400, msg, code=code, param="previous_response_id")
            return (previous.usage.total_tokens if previous.usage else 0), None
        conversation_id = asked.conversation_id()
        if conversation_id is None:
            return 0, None
        conversation = self._state.conversation(conversation_id)
        if conversation.active is not None:
            raise locked()
        return conversation.tokens, conversation

    def _remember(self, run: Run) -> None:
        self.live[run.body.id] = run
        self._state.entries[run.body.id] = run.entry
        forget_oldest(self._state.entries, MAX_ENTRIES)
        if run.body.store:
            self._state.responses[run.body.id] = run.body
            forget_oldest(self._state.responses, MAX_RESPONSES)
        if run.conversation is not None:
            run.conversation.active = run.body.id
        self.changed.beat()


def locked() -> VendorError:
    """Return the refusal of a second response while one is active in the conversation."""
    msg = (
        "Another process is currently operating on this conversation. "
        "Please retry in a few seconds."
    )
    return VendorError(400, msg, code="conversation_locked", param="conversation")


def _check(asked: CreateResponse) -> None:
    if not asked.model:
        msg = "Missing required parameter: 'model'."
        raise VendorError(400, msg, code="missing_required_parameter", param="model")
    if asked.conversation is not None and asked.previous_response_id is not None:
        msg = (
            "Mutually exclusive parameters: 'conversation' and 'previous_response_id'. "
            "Ensure you are only providing one of them."
        )
        raise VendorError(400, msg, code="mutually_exclusive_parameters")
    if asked.background and asked.store is False:
        msg = "Background responses need 'store' to be true."
        raise VendorError(400, msg, code="invalid_value", param="store")
    if not asked.input and asked.conversation is None and asked.previous_response_id is None:
        msg = "Missing required parameter: 'input'."
        raise VendorError(400, msg, code="missing_required_parameter", param="input")


def _answer(run: Run) -> tuple[str, bool]:
    """Return the text to write, and whether it stops before its end."""
    text = reply_text(run.entry.input_texts, attachments(run.items))
    if run.struck_by("incomplete"):
        return text[: len(text) // 2], True
    most = run.body.max_output_tokens
    if most is not None and tokens_of(text) > most:
        return text.encode()[: most * 4].decode(errors="ignore"), True
    return text, False


def reply_text(texts: Sequence[str], attached: int) -> str:
    """Return what the model says: every text it was given, so that a checker can find them."""
    said = "Eco: " + (" | ".join(texts) or "(sin texto)")
    if attached:
        said += f" (y {attached} adjunto{'s' if attached > 1 else ''})"
    return said


def _pieces(text: str) -> list[str]:
    """Cut a text into at most `MAX_DELTAS` pieces."""
    size = max(24, -(-len(text) // MAX_DELTAS))
    return [text[start : start + size] for start in range(0, len(text), size)]


def _text_part(text: str) -> Json:
    return {"type": "output_text", "annotations": [], "logprobs": [], "text": text}


def _message(item_id: str, text: str | None, status: str) -> Json:
    return {
        "id": item_id,
        "type": "message",
        "status": status,
        "role": "assistant",
        "content": [] if text is None else [_text_part(text)],
    }


async def _pause(seconds: float) -> None:
    if seconds > 0:
        await asyncio.sleep(seconds)

"""What the OpenAI simulator remembers: conversations, responses, and its own account of usage."""

import random
import time
from collections.abc import Iterable

import msgspec

from app.simulators.bounded import forget_oldest
from app.simulators.web import Json, VendorError

MAX_CONVERSATIONS = 100_000
MAX_ITEMS = 20_000  # per conversation
MAX_RESPONSES = 20_000  # that can be retrieved
MAX_ENTRIES = 200_000  # of the account; its totals stay exact beyond

ITEMS_PER_CALL = 20
"""What `conversations.create` and `conversations.items.create` accept at once."""

TERMINAL = frozenset({"completed", "failed", "cancelled", "incomplete"})


class InputTokensDetails(msgspec.Struct):
    """Where input tokens came from."""

    cached_tokens: int = 0
    cache_write_tokens: int = 0


class OutputTokensDetails(msgspec.Struct):
    """What output tokens were spent on."""

    reasoning_tokens: int = 0


class Usage(msgspec.Struct):
    """Token counts of one response, in the vendor's shape."""

    input_tokens: int
    input_tokens_details: InputTokensDetails
    output_tokens: int
    output_tokens_details: OutputTokensDetails
    total_tokens: int


class ConversationRef(msgspec.Struct):
    """The conversation that a response belongs to."""

    id: str


class ResponseBody(msgspec.Struct, kw_only=True):
    """A response as the vendor shows it."""

    id: str
    object: str = "response"
    created_at: int
    completed_at: int | None = None
    status: str
    background: bool = False
    conversation: ConversationRef | None = None
    error: dict[str, str] | None = None
    incomplete_details: dict[str, str] | None = None
    instructions: str | None = None
    max_output_tokens: int | None = None
    metadata: dict[str, str]
    model: str
    output: list[Json]
    parallel_tool_calls: bool = True
    previous_response_id: str | None = None
    prompt_cache_key: str | None = None
    reasoning: dict[str, str | None] = msgspec.field(
        default_factory=lambda: {"effort": None, "summary": None}
    )
    safety_identifier: str | None = None
    service_tier: str = "default"
    store: bool = True
    temperature: float = 1.0
    text: dict[str, dict[str, str]] = msgspec.field(
        default_factory=lambda: {"format": {"type": "text"}}
    )
    tool_choice: str = "auto"
    tools: list[Json] = []
    top_p: float = 1.0
    truncation: str = "disabled"
    usage: Usage | None = None


class Conversation(msgspec.Struct):
    """A conversation and its items, oldest first. `active` is the response that locks it."""

    id: str
    created_at: int
    metadata: dict[str, str]
    items: list[Json] = []
    tokens: int = 0
    active: str | None = None

    def shown(self) -> Json:
        """Return it as the vendor shows it."""
        return {
            "id": self.id,
            "object": "conversation",
            "created_at": self.created_at,
            "metadata": self.metadata,
        }

    def add(self, items: Iterable[Json]) -> None:
        """Append items, counting their tokens."""
        for item in items:
            self.items.append(item)
            self.tokens += item_tokens(item)
        del self.items[:-MAX_ITEMS]


class Entry(msgspec.Struct):
    """One line of the account: a response, and what was billed for it."""

    id: str
    conversation: str | None
    metadata: dict[str, str]
    model: str
    background: bool
    status: str
    usage: Usage | None
    input_texts: list[str]
    created_at: float


class Reported(msgspec.Struct):
    """What the account adds up to; never shrinks, whatever is deleted or forgotten."""

    input_tokens: int = 0
    output_tokens: int = 0
    total_tokens: int = 0
    responses: int = 0
    """How many responses were billed."""


class OpenAIState(msgspec.Struct):
    """Everything that `--state FILE` keeps."""

    seed: int
    counter: int = 0
    conversations: dict[str, Conversation] = {}
    responses: dict[str, ResponseBody] = {}
    entries: dict[str, Entry] = {}
    reported: Reported = msgspec.field(default_factory=Reported)

    @classmethod
    def fresh(cls, seed: int | None = None) -> "OpenAIState":
        """Return an empty state; the same seed gives the same ids, no seed gives new ones."""
        return cls(seed=random.SystemRandom().getrandbits(48) if seed is None else seed)

    def new_id(self, prefix: str) -> str:
        """Return the next id, e.g. `resp_` and 36 hexadecimal digits."""
        self.counter += 1
        return f"{prefix}_{self.seed & 0xFFFF_FFFF_FFFF:012x}{self.counter:024x}"

    def conversation(self, conversation_id: str) -> Conversation:
        """Return a conversation. Raises VendorError 404."""
        found = self.conversations.get(conversation_id)
        if found is None:
            msg = f"Conversation with id '{conversation_id}' not found."
            raise VendorError(404, msg)
        return found

    def response(self, response_id: str) -> ResponseBody:
        """Return a stored response. Raises VendorError 404."""
        found = self.responses.get(response_id)
        if found is None:
            msg = f"Response with id '{response_id}' not found."
            raise VendorError(404, msg)
        return found

    def new_conversation(self, metadata: dict[str, str]) -> Conversation:
        """Create an empty conversation."""
        made = Conversation(self.new_id("conv"), int(time.time()), metadata)
        self.conversations[made.id] = made
        forget_oldest(self.conversations, MAX_CONVERSATIONS)
        return made

    def bill(self, entry: Entry, usage: Usage) -> None:
        """Add a response's usage to the account, once."""
        entry.usage = usage
        self.reported.input_tokens += usage.input_tokens
        self.reported.output_tokens += usage.output_tokens
        self.reported.total_tokens += usage.total_tokens
        self.reported.responses += 1

    def after_restart(self) -> None:
        """End what was running when the state was saved: it will never go on."""
        for conversation in self.conversations.values():
            conversation.active = None
        for body in self.responses.values():
            if body.status not in TERMINAL:
                body.status = "failed"
                body.error = {"code": "server_error", "message": "The server was restarted."}
        for entry in self.entries.values():
            if entry.status not in TERMINAL:
                entry.status = "failed"


def tokens_of(text: str) -> int:
    """Return the tokens of a text: one for each four bytes begun. Deterministic, not a model's."""
    return (len(text.encode()) + 3) // 4


def item_tokens(item: Json) -> int:
    """Return the tokens of an item: 4 for itself, its texts, and 85 for anything not a text."""
    total = 4
    content = item.get("content")
    for part in content if isinstance(content, list) else ():
        text = part.get("text") if isinstance(part, dict) else None
        total += tokens_of(text) if isinstance(text, str) else 85
    return total


def usage_of(context: int, input_tokens: int, output_tokens: int) -> Usage:
    """Usage of one response; of the `context` before its input, whole blocks count as cached."""
    cached = context // 128 * 128 if context >= 1024 else 0  # noqa: PLR2004 - the vendor's rule
    return Usage(
        context + input_tokens,
        InputTokensDetails(cached_tokens=cached),
        output_tokens,
        OutputTokensDetails(),
        context + input_tokens + output_tokens,
    )

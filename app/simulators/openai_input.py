"""What the OpenAI simulator accepts: request bodies, and input turned into conversation items."""

from typing import NoReturn, TypeAlias

import msgspec

from app.simulators.openai_state import ITEMS_PER_CALL, OpenAIState
from app.simulators.web import Json, VendorError

ROLES = frozenset({"user", "assistant", "system", "developer"})
PARTS = frozenset(
    {"input_text", "input_image", "input_file", "input_audio", "output_text", "refusal", "text"}
)
MAX_KEPT_URL = 2048
"""Longer values (a picture as a `data:` URL) are shortened in the items that are kept."""

Metadata: TypeAlias = dict[str, str]


class CreateResponse(msgspec.Struct, kw_only=True):
    """The body of `POST /v1/responses`; keys that are not here are accepted and ignored."""

    model: str = ""
    input: str | list[Json] = ""
    conversation: str | Json | None = None
    previous_response_id: str | None = None
    instructions: str | None = None
    background: bool | None = None
    stream: bool | None = None
    store: bool | None = None
    metadata: Metadata | None = None
    max_output_tokens: int | None = None
    prompt_cache_key: str | None = None
    safety_identifier: str | None = None
    tools: list[Json] | None = None
    truncation: str | None = None

    def conversation_id(self) -> str | None:
        """Return the conversation's id, given as a text or as `{id}`. Raises VendorError 400."""
        if not isinstance(self.conversation, dict):
            return self.conversation
        found = self.conversation.get("id")
        if not isinstance(found, str):
            msg = "Missing required parameter: 'conversation.id'."
            raise VendorError(400, msg, code="missing_required_parameter", param="conversation.id")
        return found


class CreateConversation(msgspec.Struct, kw_only=True):
    """The body of `POST /v1/conversations`."""

    items: list[Json] | None = None
    metadata: Metadata | None = None


class CreateItems(msgspec.Struct, kw_only=True):
    """The body of `POST /v1/conversations/{id}/items`."""

    items: list[Json]


class UpdateConversation(msgspec.Struct, kw_only=True):
    """The body of `POST /v1/conversations/{id}`."""

    metadata: Metadata | None


def checked_metadata(metadata: Metadata | None) -> Metadata:
    """Return at most 16 pairs of at most 64 and 512 characters. Raises VendorError 400."""
    pairs = metadata or {}
    if len(pairs) > 16:  # noqa: PLR2004 - documented limits
        msg = f"Invalid 'metadata': too many properties. Expected at most 16, got {len(pairs)}."
        raise VendorError(400, msg, code="object_above_max_properties", param="metadata")
    for key, value in pairs.items():
        if len(key) > 64 or len(value) > 512:  # noqa: PLR2004
            msg = f"Invalid 'metadata.{key[:64]}': string too long."
            raise VendorError(400, msg, code="string_above_max_length", param="metadata")
    return pairs


def checked_count(items: list[Json]) -> list[Json]:
    """Return at most 20 items. Raises VendorError 400."""
    if len(items) > ITEMS_PER_CALL:
        msg = (
            f"Invalid 'items': array too long. Expected an array with maximum length "
            f"{ITEMS_PER_CALL}, but got an array with length {len(items)} instead."
        )
        raise VendorError(400, msg, code="array_above_max_length", param="items")
    return items


def items_of(state: OpenAIState, given: str | list[Json], param: str) -> list[Json]:
    """Return input as items with ids. Raises VendorError 400 for what the vendor refuses."""
    if isinstance(given, str):
        given = [{"role": "user", "content": given}]
    return [_item(state, item, f"{param}[{index}]") for index, item in enumerate(given)]


def user_texts(items: list[Json]) -> list[str]:
    """Return every text of the user's messages, in order."""
    return [
        text
        for item in items
        if item.get("role") == "user"
        for part in _parts(item)
        if isinstance(text := part.get("text"), str)
    ]


def attachments(items: list[Json]) -> int:
    """Return how many pictures, files and sounds the user's messages hold."""
    return sum(
        part.get("type") not in {"input_text", "text"}
        for item in items
        if item.get("role") == "user"
        for part in _parts(item)
    )


def _parts(item: Json) -> list[Json]:
    content = item.get("content")
    return content if isinstance(content, list) else []


def _item(state: OpenAIState, item: Json, where: str) -> Json:
    kind = item.get("type", "message")
    if kind != "message":
        if not isinstance(kind, str):
            _refuse(f"{where}.type", kind)
        return {**item, "id": state.new_id("item"), "status": "completed"}
    role = item.get("role")
    if role not in ROLES:
        _refuse(f"{where}.role", role)
    content = item.get("content")
    if isinstance(content, str):
        content = [
            {"type": "output_text" if role == "assistant" else "input_text", "text": content}
        ]
    if not isinstance(content, list):
        _refuse(f"{where}.content", content)
    return {
        "id": state.new_id("msg"),
        "type": "message",
        "status": "completed",
        "role": role,
        "content": [_part(part, f"{where}.content[{n}]") for n, part in enumerate(content)],
    }


def _part(part: object, where: str) -> Json:
    kind = part.get("type") if isinstance(part, dict) else None
    if not isinstance(part, dict) or kind not in PARTS:
        _refuse(f"{where}.type", kind)
    if kind in {"input_text", "output_text", "text"} and not isinstance(part.get("text"), str):
        _refuse(f"{where}.text", part.get("text"))
    kept = {key: _shortened(value) for key, value in part.items() if key != "text"}
    if "text" in part:
        kept["text"] = part["text"]
    if kind == "output_text":
        kept.setdefault("annotations", [])
        kept.setdefault("logprobs", [])
    if kind == "input_image":
        kept.setdefault("detail", "auto")
        kept.setdefault("file_id", None)
    return kept


def _shortened(value: object) -> object:
    if isinstance(value, str) and len(value) > MAX_KEPT_URL:
        return f"{value[:64]}…({len(value)} characters)"
    return value


def _refuse(param: str, value: object) -> NoReturn:
    msg = f"Invalid value for '{param}': {value!r:.100}"
    raise VendorError(400, msg, code="invalid_value", param=param)

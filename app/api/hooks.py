"""`POST /update-user`: n8n, or whatever else watches the gateway, says that a person changed (A10).

    {"userId": "573003913251", "changes": ["name"]}   ->
    {"success": true, "message": "…", "changes": ["name"]}

`userId` is a phone number, a lid or a pseudonym. Whatever `changes` says, name and labels are read
again from the gateway, in the background. Somebody whom the log does not know has nothing to be
updated: that is no error, since whoever calls this cannot know.
"""

from __future__ import annotations

from typing import Annotated, Any, Final

import msgspec
import structlog
from fastapi import APIRouter, Depends, Request, Response

from app.api.callers import Caller, needs
from app.api.v1.reading import BotName, read_for
from app.api.v1.showing import PROBLEMS
from app.conversation.profiles import TooManyUpdates
from eventstore.errors import EventStoreError

_log = structlog.get_logger(__name__)
router = APIRouter(tags=["hooks"])
Hook = Annotated[Caller, Depends(needs("hook"))]

MOST_CHANGES: Final = 50
LONGEST: Final = 100


class _Refused(Exception):
    def __init__(self, status: int, error: str) -> None:
        self.status, self.error = status, error
        super().__init__(error)


def _json(description: str, example: dict[str, Any]) -> dict[str, Any]:
    content = {"application/json": {"schema": {"type": "object"}, "example": example}}
    return {"description": description, "content": content}


_REQUEST: Final = {
    "requestBody": {
        "required": True,
        "content": {
            "application/json": {
                "schema": {
                    "type": "object",
                    "required": ["userId"],
                    "properties": {
                        "userId": {"type": "string", "minLength": 1, "maxLength": LONGEST},
                        "changes": {
                            "type": "array",
                            "maxItems": MOST_CHANGES,
                            "items": {"type": "string", "maxLength": LONGEST},
                        },
                    },
                },
                "example": {"userId": "573003913251", "changes": ["enrichment"]},
            }
        },
    }
}
_ANSWERS: Final = {
    **PROBLEMS,
    200: _json(
        "It will be read again.", {"success": True, "message": "…", "changes": ["enrichment"]}
    ),
    400: _json("The body is not what it should be.", {"error": "userId is required"}),
    503: _json("Too many wait already, or nobody can tell who that is now.", {"error": "…"}),
}


@router.post(
    "/update-user",
    summary="Somebody's name or labels changed",
    responses=_ANSWERS,
    openapi_extra=_REQUEST,
)
async def update_user(request: Request, caller: Hook, *, bot: BotName = "") -> Response:
    """Read a person's name and labels again, in the background."""
    read = read_for(request, caller, bot)
    try:
        user, changes = _asked(await request.body())
        pseudonym = await read.bot.read_profile_again(user)
    except _Refused as refusal:
        _log.warning("HOOK_ERROR", error=refusal.error)
        return _answer(refusal.status, {"error": refusal.error})
    except (TooManyUpdates, EventStoreError) as error:
        _log.warning("HOOK_ERROR", error=type(error).__name__)
        return _answer(503, {"error": "not now: try again later"}, {"retry-after": "5"})
    _log.info("HOOK_UPDATE", userId=pseudonym or "unknown", changes=len(changes))
    message = (
        "name and labels are read again from WhatsApp"
        if pseudonym
        else "nobody of that name has written yet: there is nothing to update"
    )
    return _answer(200, {"success": True, "message": message, "changes": changes})


def _asked(body: bytes) -> tuple[str, list[str]]:
    """Return whom a body names, and the changes that it tells of. Raises `_Refused`."""
    try:
        asked: object = msgspec.json.decode(body or b"{}")
    except (msgspec.DecodeError, UnicodeDecodeError):
        raise _Refused(400, "the body must be a JSON object") from None
    if not isinstance(asked, dict):
        raise _Refused(400, "the body must be a JSON object")
    user, changes = asked.get("userId"), asked.get("changes")
    if isinstance(user, bool) or not isinstance(user, str | int) or not str(user).strip():
        raise _Refused(400, "userId is required")
    if len(str(user)) > LONGEST:
        raise _Refused(400, "userId is too long")
    if changes is None:
        changes = []
    if (
        not isinstance(changes, list)
        or len(changes) > MOST_CHANGES
        or not all(isinstance(change, str) and len(change) <= LONGEST for change in changes)
    ):
        raise _Refused(400, "changes must be a list of a few words")
    return str(user).strip(), changes


def _answer(status: int, body: object, headers: dict[str, str] | None = None) -> Response:
    return Response(
        msgspec.json.encode(body), status, headers=headers, media_type="application/json"
    )

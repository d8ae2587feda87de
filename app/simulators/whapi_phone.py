"""The other end of the Whapi simulator: phones that write to the bot and show what it answers.

All of it lives under `/_sim`: the bot never calls it, tests, the demo and `hilo chat` do.
"""

import asyncio
import base64
import binascii
import time
from typing import Literal

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from app.simulators.audio import silence
from app.simulators.pulse import Pulse
from app.simulators.web import (
    Handler,
    Json,
    VendorError,
    number,
    read_body,
    read_json,
    reply,
    wait_seconds,
)
from app.simulators.whapi_settings import Health, Settings
from app.simulators.whapi_state import (
    BOT_NUMBER,
    Chat,
    Kept,
    WhapiState,
    chat_id_of,
    contact_of,
)
from app.simulators.whapi_webhooks import Event, Manners, Postman, Webhook, event_of

MAX_TYPING_SECONDS = 60
_PIXEL = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)


class Say(msgspec.Struct, kw_only=True):
    """The body of `POST /_sim/phone/{number}/say`; `message` overrides any field of the message."""

    text: str = ""
    name: str | None = None
    quoted: str | None = None
    message: Json = {}


class Attach(Say, kw_only=True):
    """The body of `…/image`, `…/voice` and `…/document`; without `base64`, a small real file."""

    base64: str | None = None
    mime_type: str | None = None
    file_name: str = ""
    seconds: int = 3


class Edit(msgspec.Struct, rename={"form": "as"}):
    """The body of `…/edit`: which message, its new text, and as which event it arrives."""

    id: str
    text: str
    form: Literal["patch", "put", "action"] = "patch"


class Delete(msgspec.Struct, rename={"form": "as"}):
    """The body of `…/delete`."""

    id: str
    form: Literal["delete", "action"] = "delete"


class Typing(msgspec.Struct):
    """The body of `…/typing`."""

    status: Literal["typing", "recording", "online", "offline", "pending"] = "typing"


class Profile(msgspec.Struct):
    """The body of `…/profile`."""

    name: str | None = None
    labels: list[Json] | None = None


class SetHealth(msgspec.Struct):
    """The body of `POST /_sim/health`."""

    text: Health


class Phones:
    """What people do with their phones, and what they see on them."""

    def __init__(self, state: WhapiState, postman: Postman, settings: Settings) -> None:
        self._state = state
        self._postman = postman
        self._settings = settings
        self.changed = Pulse()

    def routes(self) -> list[Route]:
        """Return the paths under `/_sim`, but those of the faults."""
        phone = "/_sim/phone/{number}"
        table: list[tuple[str, str, Handler]] = [
            ("POST", f"{phone}/say", self.say),
            ("POST", f"{phone}/agent", self.agent),
            ("POST", f"{phone}/image", self.image),
            ("POST", f"{phone}/voice", self.voice),
            ("POST", f"{phone}/document", self.document),
            ("POST", f"{phone}/edit", self.edit_message),
            ("POST", f"{phone}/delete", self.delete_message),
            ("POST", f"{phone}/typing", self.typing),
            ("POST", f"{phone}/profile", self.profile),
            ("GET", phone, self.show),
            ("GET", f"{phone}/wait", self.wait),
            ("POST", "/_sim/deliver", self.deliver),
            ("POST", "/_sim/webhook", self.set_webhook),
            ("GET", "/_sim/webhook", self.show_webhook),
            ("GET", "/_sim/queue", self.queue),
            ("POST", "/_sim/queue/retry", self.retry_now),
            ("GET", "/_sim/trace", self.trace),
            ("POST", "/_sim/health", self.set_health),
            ("GET", "/_sim/account", self.account),
        ]
        return [Route(path, do, methods=[verb]) for verb, path, do in table]

    def keep(self, message: Json) -> Kept:
        """Show a message on the phone."""
        kept = self._state.keep(message)
        self.changed.beat()
        return kept

    def edit(self, kept: Kept, text: str) -> None:
        """Replace the text of a message."""
        kind = str(kept.message["type"])
        content = kept.message.get(kind)
        key = "body" if kind == "text" else "caption"
        kept.message[kind] = {**(content if isinstance(content, dict) else {}), key: text}
        kept.edited = True
        self.changed.beat()

    def delete(self, kept: Kept) -> None:
        """Take a message off the phone."""
        kept.deleted = True
        self.changed.beat()

    def set_presence(self, chat_id: str, presence: str | None) -> None:
        """Show that the bot types or records, or that it stopped."""
        self._state.chat(chat_id).bot_presence = presence
        self.changed.beat()

    async def show_typing(self, chat_id: str, presence: str, seconds: float) -> None:
        """Let the bot type for a while, as `typing_time` asks. Raises VendorError 400."""
        if not 0 <= seconds <= MAX_TYPING_SECONDS:
            raise VendorError(400, "Wrong request parameters", code=f"typing_time: {seconds:g}")
        if seconds:
            self.set_presence(chat_id, presence)
            await asyncio.sleep(seconds)

    async def say(self, request: Request) -> Response:
        """`POST …/say {text}`: a customer writes."""
        asked = await read_json(request, Say)
        return self._write(request, asked, "text", {"body": asked.text})

    async def agent(self, request: Request) -> Response:
        """`POST …/agent {text}`: a human answers from the bot's own phone."""
        asked = await read_json(request, Say)
        asked.message = {"from_me": True, "from": BOT_NUMBER, **asked.message}
        return self._write(request, asked, "text", {"body": asked.text})

    async def image(self, request: Request) -> Response:
        """`POST …/image {text, base64, mime_type}`."""
        return await self._attach(request, "image", "image/png", _PIXEL)

    async def voice(self, request: Request) -> Response:
        """`POST …/voice {base64, seconds}`."""
        return await self._attach(request, "voice", "audio/ogg; codecs=opus", b"")

    async def document(self, request: Request) -> Response:
        """`POST …/document {text, base64, mime_type, file_name}`."""
        return await self._attach(request, "document", "text/plain", b"Documento de prueba\n")

    async def edit_message(self, request: Request) -> Response:
        """`POST …/edit {id, text, as}`: the customer edits a message of theirs."""
        asked = await read_json(request, Edit)
        kept = self._state.find(asked.id)
        before = dict(kept.message)
        self.edit(kept, asked.text)
        content = {"body": asked.text}
        action: Json = {"type": "edit", "target": asked.id, "edited_type": kept.message["type"]}
        trigger = self._sketch(kept, "action", {**action, "edited_content": content})
        if asked.form == "put":
            return self._told(Event("messages", "put"), {"messages": [kept.message]}, kept)
        if asked.form == "action":
            return self._told(Event("messages"), {"messages": [trigger]}, kept)
        update = {
            "id": asked.id,
            "trigger": trigger,
            "before_update": before,
            "after_update": kept.message,
            "changes": [kept.message["type"]],
        }
        return self._told(Event("messages", "patch"), {"messages_updates": [update]}, kept)

    async def delete_message(self, request: Request) -> Response:
        """`POST …/delete {id, as}`: the customer deletes a message of theirs."""
        asked = await read_json(request, Delete)
        kept = self._state.find(asked.id)
        self.delete(kept)
        if asked.form == "action":
            trigger = self._sketch(kept, "action", {"type": "delete", "target": asked.id})
            return self._told(Event("messages"), {"messages": [trigger]}, kept)
        return self._told(Event("messages", "delete"), {"messages_removed": [asked.id]}, kept)

    async def typing(self, request: Request) -> Response:
        """`POST …/typing {status}`: the bot's gateway sees it, subscribed or not."""
        asked = await read_json(request, Typing)
        contact = contact_of(chat_id_of(request.path_params["number"]))
        presence = {"contact_id": contact, "status": asked.status}
        queued = self._postman.post(Event("presences"), {"presences": [presence]})
        return reply({"queued": queued})

    async def profile(self, request: Request) -> Response:
        """`POST …/profile {name, labels}`: what `GET /chats/{id}` will show."""
        asked = await read_json(request, Profile)
        chat = self._state.chat(chat_id_of(request.path_params["number"]))
        chat.name = asked.name or chat.name
        chat.labels = chat.labels if asked.labels is None else asked.labels
        return reply(chat.shown())

    async def show(self, request: Request) -> Response:
        """`GET /_sim/phone/{number}?after=N`: the chat, oldest first."""
        return reply(self._view(self._chat(request), int(number(request, "after", 0, 0, 1e9))))

    async def wait(self, request: Request) -> Response:
        """`GET …/wait?after=N&timeout=S`: as soon as there is a message above N, or in any case.

        With `bot=1` the bot's messages count only; with `presence=typing` (or empty) a presence
        other than this one ends the wait too.
        """
        chat = self._chat(request)
        after = int(number(request, "after", 0, 0, 1e9))
        bot_only = request.query_params.get("bot") == "1"
        presence = request.query_params.get("presence")

        def news() -> bool:
            if presence is not None and (chat.bot_presence or "") != presence:
                return True
            fresh = (kept for kept in reversed(chat.kept) if kept.seq > after)
            return any(kept.author == "bot" or not bot_only for kept in fresh)

        await self.changed.until(news, wait_seconds(request))
        return reply(self._view(chat, after))

    async def deliver(self, request: Request) -> Response:
        """`POST /_sim/deliver`: the body goes to the webhook as it is, JSON or not."""
        body = await read_body(request)
        return reply({"queued": self._postman.post_raw(event_of(body), body)})

    async def set_webhook(self, request: Request) -> Response:
        """`POST /_sim/webhook`: one webhook, and how to deliver to it; `Webhook` + `Manners`."""
        asked = await read_json(request, Json)
        try:
            webhooks = [msgspec.convert(asked, Webhook)] if "url" in asked else None
            kept = msgspec.to_builtins(self._postman.manners)
            self._postman.manners = msgspec.convert({**kept, **asked}, Manners)
            if webhooks is not None:
                self._postman.webhooks = webhooks
        except msgspec.ValidationError as wrong:
            raise VendorError(400, str(wrong)) from wrong
        return await self.show_webhook(request)

    async def show_webhook(self, _: Request) -> Response:
        """`GET /_sim/webhook`."""
        return reply({"webhooks": self._postman.webhooks, "manners": self._postman.manners})

    async def queue(self, request: Request) -> Response:
        """`GET /_sim/queue`; with `wait=1&timeout=S`, when nothing is pending any more."""
        if request.query_params.get("wait") == "1":
            await self._postman.drained(wait_seconds(request))
        postman = self._postman
        return reply({"pending": postman.pending, "in_flight": postman.in_flight})

    async def retry_now(self, _: Request) -> Response:
        """`POST /_sim/queue/retry`: what waits for its delay is sent at once."""
        self._postman.retry_now()
        return reply({"pending": self._postman.pending})

    async def trace(self, _: Request) -> Response:
        """`GET /_sim/trace`: the last 1,000 attempts to deliver."""
        return reply({"attempts": list(self._postman.trace)})

    async def set_health(self, request: Request) -> Response:
        """`POST /_sim/health {text}`: `QR` unlinks the phone (sends: 401), `AUTH` links it."""
        asked = await read_json(request, SetHealth)
        return reply({"queued": self._settings.set_health(asked.text)})

    async def account(self, _: Request) -> Response:
        """`GET /_sim/account`: what the bot sent to whom, and how the webhooks fared."""
        chats = {
            chat.id: [
                {
                    "id": kept.message["id"],
                    "type": kept.message["type"],
                    "body": kept.body,
                    "received_at": kept.received_at,
                }
                for kept in chat.kept
                if kept.author == "bot"
            ]
            for chat in self._state.chats.values()
        }
        counts = msgspec.to_builtins(self._postman.counts)
        return reply(
            {
                "chats": chats,
                "sent": self._state.sent,
                "duplicates_sent": counts["duplicates_sent"],
                "webhooks": {**counts, "pending": self._postman.pending},
            }
        )

    def _chat(self, request: Request) -> Chat:
        return self._state.chat(chat_id_of(request.path_params["number"]))

    def _view(self, chat: Chat, after: int) -> Json:
        return {
            "chat_id": chat.id,
            "name": chat.name,
            "messages": [kept.shown() for kept in chat.kept if kept.seq > after],
            "last": chat.last,
            "bot_presence": chat.bot_presence,
        }

    async def _attach(
        self, request: Request, kind: str, mime_type: str, default: bytes
    ) -> Response:
        asked = await read_json(request, Attach)
        try:
            content = default if asked.base64 is None else base64.b64decode(asked.base64)
        except (binascii.Error, ValueError) as wrong:
            raise VendorError(400, "base64 cannot be decoded") from wrong
        if kind == "voice" and asked.base64 is None:
            content = silence(seconds=asked.seconds)
        medium = self._state.store(content, asked.mime_type or mime_type, asked.file_name)
        shown = medium.shown()
        if kind in self._settings.auto_download:
            # The vendor's links need no token.
            shown["link"] = f"{request.base_url}files/{medium.id}"
        if asked.text:
            shown["caption"] = asked.text
        if kind == "voice":
            shown["seconds"] = asked.seconds
        return self._write(request, asked, kind, shown)

    def _write(self, request: Request, asked: Say, kind: str, content: Json) -> Response:
        chat = self._chat(request)
        chat.name = asked.name or chat.name
        message: Json = {
            "id": self._state.new_id(),
            "from_me": False,
            "type": kind,
            "chat_id": chat.id,
            "chat_name": chat.name,
            "timestamp": int(time.time()),
            "source": "mobile",
            kind: content,
            "from": contact_of(chat.id),
            "from_name": chat.name,
        }
        if asked.quoted is not None:
            message["context"] = {"quoted_id": asked.quoted}
        kept = self.keep({**message, **asked.message})
        return self._told(Event("messages"), {"messages": [kept.message]}, kept)

    def _told(self, event: Event, content: Json, kept: Kept) -> Response:
        queued = self._postman.post(event, content)
        return reply({"id": kept.message["id"], "seq": kept.seq, "queued": queued})

    def _sketch(self, kept: Kept, kind: str, content: Json) -> Json:
        """Return a message by the same person in the same chat, not shown on the phone."""
        same = ("from_me", "chat_id", "chat_name", "source", "from", "from_name")
        message = {key: kept.message[key] for key in same if key in kept.message}
        return {
            **message,
            "id": self._state.new_id("act"),
            "type": kind,
            "timestamp": int(time.time()),
            kind: content,
        }

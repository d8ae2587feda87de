"""A Whapi-compatible server: what a bot calls on the gateway, and the webhooks it gets back."""

import base64
import binascii
import random
import re
import time

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

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
)
from app.simulators.whapi_phone import Phones
from app.simulators.whapi_settings import Settings
from app.simulators.whapi_state import (
    BOT_NUMBER,
    Kept,
    WhapiState,
    chat_id_of,
    contact_of,
)
from app.simulators.whapi_webhooks import Event, Postman

MEDIA_KINDS = {
    "image": "image/jpeg",
    "video": "video/mp4",
    "gif": "video/mp4",
    "audio": "audio/mpeg",
    "voice": "audio/ogg; codecs=opus",
    "document": "application/pdf",
    "sticker": "image/webp",
}
STATUS_CODES = {"failed": 0, "pending": 1, "sent": 2, "delivered": 3, "read": 4, "played": 5}

_ADDRESS = re.compile(r"[\d-]{9,31}(@[\w.]+)?")
_PRESENCES = ("typing", "recording", "pause")


class SendText(msgspec.Struct):
    """The body of `POST /messages/text`."""

    to: str
    body: str
    typing_time: float = 0
    quoted: str | None = None
    edit: str | None = None


class SendMedia(msgspec.Struct):
    """The body of `POST /messages/{image,voice,document…}`."""

    to: str
    media: str
    caption: str | None = None
    mime_type: str | None = None
    filename: str | None = None
    seconds: int | None = None
    quoted: str | None = None


class SetPresence(msgspec.Struct):
    """The body of `PUT /presences/{id}`."""

    presence: str
    delay: float = 0


def error_body(error: VendorError) -> Json:
    """Return the vendor's error object."""
    shown: Json = {"code": error.status, "message": error.message}
    if error.code is not None:
        shown["details"] = error.code
    return {"error": shown}


class WhapiSimulator(Vendor):
    """The server, as an ASGI application.

    `token`: the bearer token that is required; without it, none. `seed`: makes ids, duplicates
    and fault rates repeatable. `state`: what an earlier one remembered.
    """

    def __init__(
        self, *, token: str | None = None, seed: int | None = None, state: WhapiState | None = None
    ) -> None:
        self.state = state or WhapiState.fresh(seed)
        rng = random.Random(seed)
        self.postman = Postman(rng, self.state.undelivered)
        self.settings = Settings(self.postman)
        self.phones = Phones(self.state, self.postman, self.settings)
        self._token = token
        super().__init__(error_body, rng)

    def hang_up(self) -> None:
        """Answer every long-poll now: the server is about to stop."""
        self.phones.changed.end()

    async def _end(self) -> None:
        await self.postman.close()
        self.state.undelivered = self.postman.undelivered()

    def _routes(self) -> list[Route]:
        vendor: list[tuple[str, str, Handler]] = [
            ("POST", "/messages/text", self.send_text),
            *(("POST", f"/messages/{kind}", self.send_media) for kind in MEDIA_KINDS),
            ("GET", "/messages/list", self.list_messages),
            ("GET", "/messages/list/{chat}", self.list_messages),
            ("GET", "/messages/{id}", self.get_message),
            ("PUT", "/messages/{id}", self.mark_read),
            ("DELETE", "/messages/{id}", self.delete_message),
            ("PUT", "/presences/{id}", self.set_presence),
            ("POST", "/presences/{id}", self.subscribe),
            ("GET", "/chats", self.list_chats),
            ("GET", "/chats/{id}", self.get_chat),
            ("GET", "/labels", self.list_labels),
            ("POST", "/labels", self.create_label),
            ("GET", "/media", self.list_media),
            ("POST", "/media", self.upload_media),
            ("GET", "/media/{id}", self.get_media),
            ("DELETE", "/media/{id}", self.delete_media),
            *self.settings.routes(),
        ]
        return [
            *(Route(path, self._checked(do), methods=[verb]) for verb, path, do in vendor),
            Route("/files/{id}", self.get_media, methods=["GET"]),
            *self.phones.routes(),
        ]

    def _checked(self, handler: Handler) -> Handler:
        """Ask for the token, if there is one, before a handler of the vendor's."""
        token = self._token
        if token is None:
            return handler

        async def checked(request: Request) -> Response:
            if request.query_params.get("token") != token:
                require_bearer(request, token)
            return await handler(request)

        return checked

    async def send_text(self, request: Request) -> Response:
        """`POST /messages/text`."""
        asked = await read_json(request, SendText)
        if not asked.body:
            raise VendorError(400, "Wrong request parameters", code="body is empty")
        chat_id = self._recipient(asked.to)
        await self.phones.show_typing(chat_id, "typing", asked.typing_time)
        if asked.edit is not None:
            kept = self.state.find(asked.edit)
            self.phones.edit(kept, asked.body)
            return reply({"sent": True, "message": kept.message})
        return self._sent(chat_id, "text", {"body": asked.body}, asked.quoted)

    async def send_media(self, request: Request) -> Response:
        """`POST /messages/{kind}`: `media` is a stored file's id, a URL, a data URL or base64."""
        kind = request.url.path.rpartition("/")[2]
        asked = await read_json(request, SendMedia)
        chat_id = self._recipient(asked.to)
        content = self._content(asked, kind)
        if asked.caption is not None:
            content["caption"] = asked.caption
        if asked.seconds is not None:
            content["seconds"] = asked.seconds
        if asked.filename is not None:
            content["filename"] = asked.filename
        return self._sent(chat_id, kind, content, asked.quoted)

    def _recipient(self, to: str) -> str:
        if self.settings.health != "AUTH":
            raise VendorError(401, "Need channel authorization for send message")
        if _ADDRESS.fullmatch(to) is None:
            raise VendorError(400, "Wrong request parameters", code=f"to: {to!r:.60}")
        return chat_id_of(to)

    def _content(self, asked: SendMedia, kind: str) -> Json:
        known = self.state.media.get(asked.media)
        if known is not None:
            return known.shown()
        mime_type = asked.mime_type or MEDIA_KINDS[kind]
        if asked.media.startswith(("http://", "https://")):
            medium_id = self.state.new_id("link")
            return {"id": medium_id, "link": asked.media, "mime_type": mime_type, "file_size": 0}
        head, comma, tail = asked.media.partition(",")
        if head.startswith("data:") and comma:
            mime_type = asked.mime_type or head[5:].removesuffix(";base64")
        encoded = tail if comma else asked.media
        try:
            content = base64.b64decode(encoded, validate=True)
        except (binascii.Error, ValueError) as wrong:
            raise VendorError(404, "Media with specified id not found") from wrong
        return self.state.store(content, mime_type, asked.filename or "").shown()

    def _sent(self, chat_id: str, kind: str, content: Json, quoted: str | None) -> Response:
        message: Json = {
            "id": self.state.new_id("api"),
            "from_me": True,
            "type": kind,
            "chat_id": chat_id,
            "timestamp": int(time.time()),
            "source": "api",
            "device_id": 1,
            "status": "pending",
            kind: content,
            "from": BOT_NUMBER,
        }
        if quoted is not None:
            message["context"] = {"quoted_id": quoted}
        answer = reply({"sent": True, "message": message})
        self.phones.keep(message)
        if self.postman.manners.echo:
            self.postman.post(Event("messages"), {"messages": [message]})
        for status in self.postman.manners.statuses:
            self._tell_status(message, status)
        return answer

    def _tell_status(self, message: Json, status: str) -> None:
        message["status"] = status
        told = {
            "id": message["id"],
            "code": STATUS_CODES.get(status, 0),
            "status": status,
            "recipient_id": message["chat_id"],
            "timestamp": str(message["timestamp"]),
        }
        self.postman.post(Event("statuses"), {"statuses": [told]})

    async def list_messages(self, request: Request) -> Response:
        """`GET /messages/list` and `…/{ChatID}`, newest first unless `sort=asc`."""
        chat = request.path_params.get("chat")
        chats = [self.state.known_chat(chat_id_of(chat))] if chat else self.state.chats.values()
        count = int(number(request, "count", 100, 1, 500))
        offset = int(number(request, "offset", 0, 0, 1e9))
        since = number(request, "time_from", 0, 0, 1e12)
        until = number(request, "time_to", 1e12, 0, 1e12)
        order = choice(request, "sort", "desc", ("asc", "desc"))
        mine = choice(request, "from_me", "", ("", "true", "false"))
        author = request.query_params.get("author")

        def asked_for(kept: Kept) -> bool:
            message = kept.message
            return (
                since <= float(str(message["timestamp"])) <= until
                and mine in ("", str(message["from_me"]).lower())
                and author in (None, message.get("from"))
                and not kept.deleted
            )

        found = [kept for chat in chats for kept in chat.kept if asked_for(kept)]
        found.sort(key=lambda kept: kept.received_at, reverse=order == "desc")
        page = found[offset : offset + count]
        return reply(
            {
                "messages": [kept.message for kept in page],
                "count": len(page),
                "total": len(found),
                "offset": offset,
                "first": offset,
                "last": offset + len(page),
            }
        )

    async def get_message(self, request: Request) -> Response:
        """`GET /messages/{id}`."""
        return reply(self.state.find(request.path_params["id"]).message)

    async def mark_read(self, request: Request) -> Response:
        """`PUT /messages/{id}`: the bot has read it."""
        self.state.find(request.path_params["id"]).read = True
        return reply({"success": True})

    async def delete_message(self, request: Request) -> Response:
        """`DELETE /messages/{id}`: for everyone."""
        self.phones.delete(self.state.find(request.path_params["id"]))
        return reply({"success": True})

    async def set_presence(self, request: Request) -> Response:
        """`PUT /presences/{id}`: what the customer sees of the bot."""
        asked = await read_json(request, SetPresence)
        if asked.presence not in _PRESENCES:
            raise VendorError(400, "Wrong request parameters", code=f"presence: {asked.presence}")
        presence = None if asked.presence == "pause" else asked.presence
        self.phones.set_presence(chat_id_of(request.path_params["id"]), presence)
        return reply({"success": True})

    async def subscribe(self, request: Request) -> Response:
        """`POST /presences/{id}`: 409 if already."""
        contact = contact_of(chat_id_of(request.path_params["id"]))
        if contact in self.state.subscribed:
            raise VendorError(409, "Specified contact presence already subscribed")
        self.state.subscribed.add(contact)
        return reply({"success": True})

    async def list_chats(self, request: Request) -> Response:
        """`GET /chats`."""
        count = int(number(request, "count", 100, 1, 500))
        offset = int(number(request, "offset", 0, 0, 1e9))
        chats = list(self.state.chats.values())
        page = [chat.shown() for chat in chats[offset : offset + count]]
        return reply({"chats": page, "count": len(page), "total": len(chats), "offset": offset})

    async def get_chat(self, request: Request) -> Response:
        """`GET /chats/{id}`: with `name` and `labels`."""
        return reply(self.state.known_chat(chat_id_of(request.path_params["id"])).shown())

    async def list_labels(self, _: Request) -> Response:
        """`GET /labels`."""
        return reply(self.state.labels)

    async def create_label(self, request: Request) -> Response:
        """`POST /labels {id, name, color}`."""
        label = await read_json(request, Json)
        self.state.labels.append(label)
        return reply({"success": True})

    async def list_media(self, request: Request) -> Response:
        """`GET /media`."""
        count = int(number(request, "count", 100, 1, 500))
        files = [medium.shown() for medium in list(self.state.media.values())[:count]]
        return reply({"files": files, "count": len(files), "total": len(self.state.media)})

    async def upload_media(self, request: Request) -> Response:
        """`POST /media`: the body is the file."""
        content = await read_body(request)
        if not content:
            raise VendorError(400, "Wrong request parameters", code="the body is empty")
        mime_type = request.headers.get("content-type", "application/octet-stream")
        return reply({"media": [{"id": self.state.store(content, mime_type).id}]})

    async def get_media(self, request: Request) -> Response:
        """`GET /media/{id}`, and `GET /files/{id}` without a token: the bytes."""
        medium = self.state.media.get(request.path_params["id"])
        if medium is None:
            raise VendorError(404, "Specified media not found")
        return Response(medium.content, media_type=medium.mime_type)

    async def delete_media(self, request: Request) -> Response:
        """`DELETE /media/{id}`."""
        if self.state.media.pop(request.path_params["id"], None) is None:
            raise VendorError(404, "Specified media not found")
        return reply({"success": True})

"""The Whapi simulator's channel: its settings, its health, and where its webhooks go."""

import time
from typing import Literal, TypeAlias

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from app.simulators.web import Handler, Json, VendorError, read_json, reply
from app.simulators.whapi_state import BOT_NUMBER, CHANNEL
from app.simulators.whapi_webhooks import Event, Postman, webhooks_of

Health: TypeAlias = Literal["NOT_INIT", "INIT", "LAUNCH", "QR", "AUTH", "ERROR", "SYNC_ERROR"]
_HEALTH_CODES = ("NOT_INIT", "INIT", "LAUNCH", "QR", "AUTH", "ERROR", "SYNC_ERROR")

_EVENTS = {
    "messages": ("post", "put", "patch", "delete"),
    "statuses": ("post", "put"),
    "chats": ("post", "put", "patch", "delete"),
    "contacts": ("post", "patch"),
    "presences": ("post",),
    "labels": ("post", "delete"),
    "groups": ("post", "put", "patch"),
    "calls": ("post",),
    "users": ("post", "delete"),
    "channel": ("post", "patch"),
    "service": ("post",),
}
_BOUNDS = {
    "callback_backoff_delay_ms": (3_000, 15_000),
    "max_callback_backoff_delay_ms": (600_000, 3_600_000),
}


class Settings:
    """The channel's settings; those of the webhooks are the postman's."""

    def __init__(self, postman: Postman) -> None:
        self._postman = postman
        self._others: Json = {"callback_persist": True}
        self._started = time.time()
        self.auto_download: list[str] = ["image", "audio", "voice", "video", "document", "sticker"]
        self.health: Health = "AUTH"

    def routes(self) -> list[tuple[str, str, Handler]]:
        """Return the vendor's paths that are about the channel."""
        return [
            ("GET", "/health", self.get_health),
            ("GET", "/settings", self.show),
            ("PATCH", "/settings", self.change),
            ("DELETE", "/settings", self.reset),
            ("GET", "/settings/events", self.list_events),
        ]

    def shown(self) -> Json:
        """Return the settings in the vendor's shape."""
        manners = self._postman.manners
        return {
            **self._others,
            "callback_backoff_delay_ms": round(manners.first_delay * 1000),
            "max_callback_backoff_delay_ms": round(manners.max_delay * 1000),
            "media": {"auto_download": self.auto_download},
            "webhooks": msgspec.to_builtins(self._postman.webhooks),
        }

    def health_shown(self) -> Json:
        """Return the channel's health in the vendor's shape."""
        return {
            "channel_id": CHANNEL,
            "start_at": int(self._started),
            "uptime": int(time.time() - self._started),
            "version": "simulator",
            "core_version": "simulator",
            "api_version": "1.8.7",
            "device_id": 1,
            "ip": "127.0.0.1",
            "status": {"code": _HEALTH_CODES.index(self.health), "text": self.health},
            "user": {"id": BOT_NUMBER, "name": "Bot de prueba"},
        }

    def set_health(self, health: Health) -> int:
        """Change the channel's health and tell the webhooks; return how many."""
        self.health = health
        return self._postman.post(Event("channel"), {"health": self.health_shown()})

    async def get_health(self, _: Request) -> Response:
        """`GET /health`."""
        return reply(self.health_shown())

    async def show(self, _: Request) -> Response:
        """`GET /settings`."""
        return reply(self.shown())

    async def change(self, request: Request) -> Response:
        """`PATCH /settings`: what is not named stays as it is."""
        wanted = await read_json(request, Json)
        before = self.shown()
        delays = {key: _delay(wanted, key) for key in _BOUNDS if key in wanted}
        webhooks = webhooks_of(wanted["webhooks"]) if "webhooks" in wanted else None
        media = wanted.get("media")
        if isinstance(media, dict) and isinstance(media.get("auto_download"), list):
            self.auto_download = media["auto_download"]
        if webhooks is not None:
            self._postman.webhooks = list(webhooks)
        manners = self._postman.manners
        manners.first_delay = delays.get("callback_backoff_delay_ms", manners.first_delay)
        manners.max_delay = delays.get("max_callback_backoff_delay_ms", manners.max_delay)
        self._others.update(
            {k: v for k, v in wanted.items() if k not in {*_BOUNDS, "media", "webhooks"}}
        )
        after = self.shown()
        changes = [key for key in after if after[key] != before.get(key)]
        return reply({"before_update": before, "after_update": after, "changes": changes})

    async def reset(self, _: Request) -> Response:
        """`DELETE /settings`."""
        self._postman.webhooks = []
        self._others = {"callback_persist": True}
        return reply({"success": True})

    async def list_events(self, _: Request) -> Response:
        """`GET /settings/events`."""
        events = [{"type": kind, "method": name} for kind in _EVENTS for name in _EVENTS[kind]]
        return reply(events)


def _delay(wanted: Json, key: str) -> float:
    """Return a delay in seconds. Raises VendorError 400 outside the vendor's bounds."""
    low, high = _BOUNDS[key]
    value = wanted[key]
    if not isinstance(value, int | float) or not low <= value <= high:
        msg = f"Wrong settings format: {key}: expected {low} to {high}"
        raise VendorError(400, msg)
    return value / 1000

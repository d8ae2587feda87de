"""Bearer keys: made and revoked at a terminal, kept in the control log, looked up by every request.

A key is `hilo_<id>_<secret>`. Who holds the control log alone cannot make a key that opens
anything: it has digests only. A revoked key stays revoked whatever is restored.
"""

from __future__ import annotations

import re
import secrets
import threading
import time
from collections.abc import Callable
from hashlib import sha256
from hmac import compare_digest
from pathlib import Path
from typing import Final, TypeVar

from app import stores
from app.aggregates.access import KEYS, USED_EVERY, Access, AccessKey, Role
from app.aggregates.access_events import ACCESS_EVENTS, KeyCreated
from app.aggregates.answers import Done
from app.control_log import decide, replayed
from app.settings import Settings
from eventstore.codec import Codec
from eventstore.store import LogReader, LogStore
from eventstore.types import Micros, Version

A = TypeVar("A")
PREFIX: Final = "hilo"
BELIEVED_SECONDS: Final = 1.0
"""A revoked key may be good for so long on a node that has just looked."""

_CODEC: Final = Codec(ACCESS_EVENTS)
_HOUR: Final = USED_EVERY / 1e6
_ID_BYTES: Final = 5
_IDS: Final = re.compile(r"[0-9a-f]{10}", re.ASCII)
_SECRET_BYTES: Final = 32


class NoSuchKey(Exception):
    """There is no key of that id that could be revoked."""


def create(  # noqa: PLR0913 - what a key is
    settings: Settings,
    role: Role,
    *,
    by: str,
    bot: str = "",
    name: str = "",
    expires_at: int | None,
) -> tuple[str, str]:
    """Make a key; return its id and the key itself, which nobody can be told again."""
    key_id, secret = secrets.token_hex(_ID_BYTES), secrets.token_urlsafe(_SECRET_BYTES)
    event = KeyCreated(
        key=key_id,
        digest=_digest(secret),
        role=role,
        by=by,
        bot=bot,
        name=name,
        expires_at=expires_at,
    )
    made = _made(settings)
    made.parent.mkdir(parents=True, exist_ok=True)
    made.touch()
    _decide(settings, lambda access, now: access.create(event, now=now))
    return key_id, f"{PREFIX}_{key_id}_{secret}"


def revoke(settings: Settings, key_id: str, *, by: str, why: str) -> None:
    """Take a key back for good. Raises `NoSuchKey` if there is none, or it is revoked already."""
    done = _decide(settings, lambda access, now: access.revoke(key_id, by=by, why=why, now=now))
    if not isinstance(done, Done):
        refuse_to_revoke(settings, key_id)  # raises: no key is made or comes back under an old id


def refuse_to_revoke(settings: Settings, key_id: str) -> None:
    """Raise `NoSuchKey` if there is no key of that id, or it is revoked already."""
    key = next((one for one in keys(settings) if one.id == key_id), None)
    if key is None:
        msg = f"there is no key {key_id!r}: hilo keys list shows all"
        raise NoSuchKey(msg)
    if key.revoked_at is not None:
        msg = f"the key {key_id!r} is revoked already"
        raise NoSuchKey(msg)


def keys(settings: Settings) -> tuple[AccessKey, ...]:
    """Return every key that ever was, the oldest first; none if there is no control log."""
    if not stores.has_control_log(settings):
        return ()
    log = stores.open_control_log(settings)
    try:
        return load(log).state.keys
    finally:
        log.close()


def load(log: LogReader) -> Access:
    """Return the keys as the control log tells them now."""
    return replayed(log, _CODEC, Access())


class KeyTable:
    """The keys as a server looks them up: from memory, read again once a second. Any thread.

    Looking needs no room on a disk once the control log is open, and makes none that is not there.
    """

    def __init__(self, settings: Settings) -> None:
        """Nothing is read before the first look."""
        self._settings = settings
        self._lock = threading.Lock()
        self._log: LogStore | None = None
        self._read_at = -BELIEVED_SECONDS
        self._version: Version | None = None
        self._by_id: dict[str, AccessKey] = {}
        self._used: dict[str, float] = {}
        self._now: Callable[[], Micros] = lambda: Micros(time.time_ns() // 1000)

    def open(self) -> None:
        """Open the control log for the looks to come. Raises `LogUnavailable`.

        SQLite needs a file beside it for that (`-shm`), which a full disk has no room for. Nothing
        here is in the way of one in PostgreSQL.
        """
        if not self._settings.on_postgres:
            self._refresh()

    def any(self) -> bool:
        """Tell whether a key was ever made: from then on everybody needs one.

        Also if the control log has been lost, or every key revoked: an installation does not open
        by itself. Whoever sits at its terminal makes a new key. Raises `LogUnavailable`.
        """
        if _made(self._settings).exists():
            return True
        self._refresh()
        return bool(self._by_id)

    def is_good(self, key_id: str) -> bool:
        """Tell whether the key of an id still opens anything. Raises `LogUnavailable`."""
        self._refresh()
        key = self._by_id.get(key_id)
        return key is not None and key.is_good(self._now())

    def may_be_new(self, token: str) -> bool:
        """Tell whether a token looks like a key that was made since the last look. Never waits."""
        prefix, key_id, secret = _parts(token)
        return bool(prefix == PREFIX and secret and _IDS.fullmatch(key_id)) and (
            key_id not in self._by_id
        )

    def look_again(self) -> None:
        """Learn now what has been made or revoked. Raises `LogUnavailable`."""
        self._refresh(0.0)

    def find(self, token: str) -> AccessKey | None:
        """Return the good key that a bearer token is, or None. Raises `LogUnavailable`."""
        self._refresh()
        prefix, key_id, secret = _parts(token)
        key = self._by_id.get(key_id)
        given = _digest(secret)  # also for an unknown id: both take as long
        known = key.digest if key is not None else b"\x00" * 32
        good = compare_digest(given, known)
        if key is None or not good or prefix != PREFIX or not key.is_good(self._now()):
            return None
        return key

    def used(self, key: AccessKey) -> None:
        """Record the use of a key, once an hour. Raises `LogUnavailable`."""
        now = time.monotonic()
        last = self._used.get(key.id, -_HOUR)
        fresh = key.used_at is not None and self._now() - key.used_at < USED_EVERY
        if fresh or now - last < _HOUR:
            return
        self._used[key.id] = now
        _decide(self._settings, lambda access, now: access.use(key.id, now=now))

    def close(self) -> None:
        """Let go of the control log."""
        with self._lock:
            if self._log is not None:
                self._log.close()
                self._log = None

    def _refresh(self, believed: float = BELIEVED_SECONDS) -> None:
        with self._lock:
            if time.monotonic() - self._read_at < believed:
                return
            if self._log is None and not stores.has_control_log(self._settings):
                self._read_at = time.monotonic()
                return  # no key was ever made
            if self._log is None:
                self._log = stores.open_control_log(self._settings)
                self._now = self._log.now
            if believed or self._log.stream_version(KEYS) != self._version:
                access = load(self._log)
                self._by_id = {key.id: key for key in access.state.keys}
                self._version = access.version
                self._read_at = time.monotonic()


def _parts(token: str) -> tuple[str, str, str]:
    prefix, _, rest = token.partition("_")
    key_id, _, secret = rest.partition("_")
    return prefix, key_id, secret


def _made(settings: Settings) -> Path:
    """Return the file that says that there are keys, whatever becomes of the control log."""
    return settings.data / "keys-were-made"


def _digest(secret: str) -> bytes:
    return sha256(secret.encode()).digest()


def _decide(settings: Settings, command: Callable[[Access, Micros], A]) -> A:
    return decide(settings, _CODEC, Access, command)

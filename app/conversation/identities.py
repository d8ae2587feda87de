"""Who writes: the way from a phone number to the stream of a person."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import structlog

from app.conversation.facts import Person
from eventstore.errors import EventStoreError, LogUnavailable
from eventstore.group_commit import GroupCommit
from eventstore.keyring import Handle, Keyring
from eventstore.types import StreamName

_log = structlog.get_logger(__name__)


def user_stream(pseudonym: str) -> StreamName:
    """Return the name of a person's stream."""
    return StreamName(f"user/{pseudonym}")


class Identities:
    """Who is who, for the event loop: memory first, else the keyring's thread, many at once."""

    def __init__(self, keyring: Keyring) -> None:
        """Register unknown people through one thread, one transaction for all who wait."""
        self._keyring = keyring
        self._group: GroupCommit[tuple[Handle, ...], str] = GroupCommit(
            self._register, name="hilo-keyring"
        )
        self.failing = False
        """Whether the last attempt to register somebody failed: only the known are served."""
        self.failures = 0
        """How many could not be registered; whoever comes again is counted again."""
        self._reader = ThreadPoolExecutor(1, thread_name_prefix="hilo-keys")

    async def pseudonym(self, person: Person) -> str:
        """Return the person's pseudonym; on return it and a current key are durable."""
        handles = handles_of(person)
        known = self._keyring.cached(handles)
        if known is not None and self._keyring.has_current_key(known):
            return known
        return await self._group.submit(handles)

    @property
    def busy_seconds(self) -> float:
        """For how long those who are being registered have waited for the keyring."""
        return self._group.busy_seconds

    async def try_again(self) -> None:
        """After a failure, find out whether the keyring can be written again."""
        if self.failing:
            loop = asyncio.get_running_loop()
            with suppress(EventStoreError):
                await loop.run_in_executor(self._reader, self._register, ())

    def _register(self, requests: Sequence[tuple[Handle, ...]]) -> list[str]:
        """Do what `Keyring.register` does, and note how that went."""
        try:
            pseudonyms = self._keyring.register(requests)
        except Exception as error:
            self.failures += len(requests)
            if not self.failing:
                self.failing = True
                # An error of the store may be told whole: it never sees anything in clear.
                told = str(error) if isinstance(error, LogUnavailable) else ""
                _log.error("KEYS_UNAVAILABLE", error=type(error).__name__, told=told)
            raise
        if self.failing:
            self.failing = False
            _log.info("KEYS_BACK", failures=self.failures)
        return pseudonyms

    def known(self, person: Person) -> str | None:
        """Return the pseudonym if memory has it; never waits."""
        return self._keyring.cached(handles_of(person))

    async def key_at_hand(self, owner: str) -> None:
        """Return when sealing for `owner` need not wait for the keyring's disk, or for its lock.

        A key that fell out of memory is read by a thread. Raises as `Keyring.current_key`.
        """
        if not self._keyring.has_current_key(owner):
            loop = asyncio.get_running_loop()
            await loop.run_in_executor(self._reader, self._keyring.current_key, owner)

    def close(self) -> None:
        """Stop the threads, after what waits."""
        self._group.close()
        self._reader.shutdown()


def handles_of(person: Person) -> tuple[Handle, ...]:
    """Return the person's handles, the phone first. Raises `ValueError` if there is none."""
    if person.phone and not person.lid:  # nearly everybody
        return (Handle("phone", person.phone),)
    handles = tuple(
        Handle(kind, value)
        for kind, value in (("phone", person.phone), ("lid", person.lid))
        if value
    )
    if not handles:
        msg = "a person without phone and lid"
        raise ValueError(msg)
    return handles

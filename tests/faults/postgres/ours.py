"""Hilo's log before the harness of `tailing`, and opened by other processes."""

from __future__ import annotations

from collections.abc import Iterator
from uuid import uuid4

import msgspec

from eventstore.postgres import PostgresLog
from eventstore.subscription import Subscription
from eventstore.writer import Writer
from tests.conformance.appends import append, event, whole
from tests.faults.postgres.stage import SCHEMA


class Opener(msgspec.Struct, frozen=True):
    """What another process needs to open the log."""

    url: str

    def open(self, *, server: bool = False) -> PostgresLog:
        return PostgresLog(self.url, schema=SCHEMA, server=server)


class OurLog:
    """A log of Hilo; every write comes from a node of its own."""

    table = (SCHEMA, "events")
    type_column = "type"

    def __init__(self, url: str) -> None:
        self._opener = Opener(url)
        self._log = self._opener.open()

    def write(self, kind: str) -> int:
        node = self._opener.open()
        writer = Writer(node)
        answer = writer.append_blocking(append(f"user/{uuid4().hex}", 0, event(kind=kind)))
        writer.close()
        node.close()
        return answer.last_position

    def follow(self) -> Iterator[tuple[int, str]]:
        for batch in Subscription(self._log, page=2):
            for found in batch.events:
                yield found.position, found.type

    def stored(self) -> list[int]:
        return [found.position for found in whole(self._log)]

    def close(self) -> None:
        self._log.close()

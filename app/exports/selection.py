"""Which events of a log are meant, and all of them page by page, in constant memory."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from eventstore.store import LogReader
from eventstore.types import Position, Recorded, StreamName, Version

PAGE: Final = 1000


@dataclass(frozen=True, slots=True)
class Selection:
    """A filter. `types` are stored names; None means everything."""

    types: tuple[str, ...] | None = None
    stream: StreamName | None = None

    def takes(self, event: Recorded) -> bool:
        """Tell whether an event is meant."""
        return (self.types is None or event.type in self.types) and (
            self.stream is None or event.stream == self.stream
        )


def pages(
    log: LogReader, wanted: Selection, *, after: Position, up_to: Position
) -> Iterator[tuple[Position, list[Recorded]]]:
    """Yield the events with `after < position <= up_to`, oldest first, and how far that goes."""
    if wanted.stream is not None:
        yield from _stream_pages(log, wanted, wanted.stream, after, up_to)
        return
    while after < up_to:
        page = log.read(after=after, up_to=up_to, limit=PAGE, types=wanted.types)
        after = page[-1].position if len(page) >= PAGE else up_to
        yield after, page


def _stream_pages(
    log: LogReader, wanted: Selection, stream: StreamName, after: Position, up_to: Position
) -> Iterator[tuple[Position, list[Recorded]]]:
    version = Version(0)
    while page := log.read_stream(stream, after=version, limit=PAGE):
        version = page[-1].version
        position = min(page[-1].position, up_to)
        yield position, [e for e in page if after < e.position <= up_to and wanted.takes(e)]
        if page[-1].position >= up_to:
            return

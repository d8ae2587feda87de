"""Media figures: what people send, per hour and kind. Texts are a kind among the others.

What was imported counts in the hour in which it was written.

What a file is called, how large it is and how long it plays is sealed with its message, so it is
not here; processing times and hit rates wait for the events of D2 and D3.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import ClassVar, Final

from sqlite_utils import Database
from sqlite_utils.migrations import Migrations

from app.aggregates.events import MessageImported, MessageReceived
from app.projections.model import Seen
from app.projections.tally import HOUR, Tally, TallyModel

MEDIA_KINDS: Final = frozenset(
    {"image", "video", "gif", "short", "audio", "voice", "document", "sticker"}
    | {"documentWithCaption"}
)
"""The kinds that come with a file."""

_migrations = Migrations("media")


class Media(TallyModel):
    """How many messages of which kind came in."""

    name = "media"
    version = 1
    table = "media_hours"
    tables = ("media_hours",)
    migrations = _migrations
    names = ("kind",)
    sums = ("messages", "answerable")
    events: ClassVar = (MessageReceived, MessageImported)

    def fold(self, tally: Tally, batch: Iterable[Seen]) -> None:
        """Add the events to the rows."""
        for _, _, at, _, event in batch:
            if isinstance(event, MessageReceived):
                row = tally[at // HOUR, event.kind]
                row[0] += 1
                row[1] += event.answerable
            elif isinstance(event, MessageImported) and event.sender == "person":
                tally[(event.at or at) // HOUR, event.kind][0] += 1


@_migrations()
def table(db: Database) -> None:
    """Make the table."""
    Media.make_table(db)


MEDIA = Media()

"""The log: streams, events, positions and time. Knows nothing of who uses it.

Open a `SQLiteLog` (or a `PostgresLog`, of `eventstore.postgres`), put a `Writer` before it, follow
it with a `Subscription`; give events a shape with `Event` and `Codec`, and seal what is personal
with `Keyring` and `Sealer`.
"""

from eventstore.codec import Codec, Event
from eventstore.integrity import leaf_hash
from eventstore.sqlite import SQLiteLog, system_clock
from eventstore.store import Beat, LogReader, LogStore, StreamInfo
from eventstore.subscription import Batch, Subscription
from eventstore.writer import Writer

__all__ = [
    "Batch",
    "Beat",
    "Codec",
    "Event",
    "LogReader",
    "LogStore",
    "SQLiteLog",
    "StreamInfo",
    "Subscription",
    "Writer",
    "leaf_hash",
    "system_clock",
]

"""The database itself keeps the log: whoever opens it, nothing in it can be changed.

Each statement is run over a bare connection, which knows no setting of ours: SQLite's
`INSERT OR REPLACE` then deletes rows without firing a single DELETE trigger.
"""

from __future__ import annotations

import pytest

from eventstore.store import LogStore
from tests.conformance.appends import ANA, BEN, append, check, event, grow, whole, write
from tests.conformance.stores import Refused, StoreFactory

NOTHING = "zeroblob(16)"
ROW = f"'Forged', 1, NULL, {NOTHING}, x''"

CHANGES = {
    "update a state": "UPDATE events SET state = x'00' WHERE position = 1",
    "update a position": "UPDATE events SET position = 99 WHERE position = 3",
    "update a time": "UPDATE events SET recorded_at = 1",
    "update or replace": "UPDATE OR REPLACE events SET position = 1 WHERE position = 2",
    "delete the last": "DELETE FROM events WHERE position = 3",
    "delete all": "DELETE FROM events",
    "replace by position": f"INSERT OR REPLACE INTO events VALUES (2, 1, 9, {ROW})",
    "replace the last": f"REPLACE INTO events VALUES (3, 2, 1, {ROW})",
    "replace by version": f"INSERT OR REPLACE INTO events VALUES (4, 1, 1, {ROW})",
    "replace by newest version": f"INSERT OR REPLACE INTO events VALUES (4, 1, 2, {ROW})",
    "replace by key": "INSERT OR REPLACE INTO events SELECT 4, 1, 3, type, recorded_at, key, "
    "append_id, state FROM events WHERE key IS NOT NULL",
    "insert with a taken version": f"INSERT INTO events VALUES (4, 1, 2, {ROW})",
    "upsert": f"INSERT INTO events VALUES (2, 1, 9, {ROW}) "
    "ON CONFLICT (position) DO UPDATE SET state = x'00'",
    "a gap": f"INSERT INTO events VALUES (5, 1, 3, {ROW})",
    "before the first": f"INSERT INTO events VALUES (0, 1, 3, {ROW})",
    "of no stream": f"INSERT INTO events VALUES (4, 77, 1, {ROW})",
    "the head back": "UPDATE head SET position = position - 1",
    "the epoch back": "UPDATE head SET epoch = 0",
    "the time back": "UPDATE head SET recorded_at = 1",
    "no head": "DELETE FROM head",
    "another head": "INSERT INTO head VALUES (2, 1, 0, 0)",
    "replace the head": "INSERT OR REPLACE INTO head VALUES (1, 1, 0, 0)",
    "rename a stream": "UPDATE streams SET name = 'user/mallory' WHERE id = 1",
    "renumber a stream": "UPDATE streams SET id = 7 WHERE id = 1",
    "delete a stream": "DELETE FROM streams WHERE id = 1",
    "replace a stream by id": "INSERT OR REPLACE INTO streams VALUES (1, 'user/mallory', 2)",
    "replace a stream by id, empty": "INSERT OR REPLACE INTO streams VALUES (1, 'user/eve', 0)",
    "replace a stream by name": "INSERT OR REPLACE INTO streams VALUES (9, 'user/ana', 0)",
    "upsert a stream": "INSERT INTO streams VALUES (1, 'user/ana', 0) "
    "ON CONFLICT (id) DO UPDATE SET name = 'user/mallory'",
    "a stream's head back": "UPDATE streams SET version = 0",
    "a stream's head forward": "UPDATE streams SET version = 9 WHERE id = 1",
    "a stream born with a past": "INSERT INTO streams VALUES (9, 'user/mallory', 5)",
}


@pytest.fixture
def three(log: LogStore) -> LogStore:
    """A log of three events: two of Ana (stream 1), one, with a key, of Ben (stream 2)."""
    grow(log, [2], ANA)
    write(log, append(BEN, 0, event(keyed="k")))
    return log


@pytest.mark.parametrize("statement", CHANGES.values(), ids=CHANGES)
def test_the_database_refuses(store_factory: StoreFactory, three: LogStore, statement: str) -> None:
    before, events = store_factory.everything(), whole(three)
    with pytest.raises(Refused):
        store_factory.tamper(statement)
    assert store_factory.everything() == before
    assert whole(three) == events
    grow(three, [1], ANA)
    grow(three, [1], BEN)
    check(whole(three))

"""Statements that would change the past, in the words of each database.

Each is told by what it tries, and every store must refuse all of them.
"""

from __future__ import annotations

_NOTHING = "zeroblob(16)"
_ROW = f"'Forged', 1, NULL, {_NOTHING}, x''"

SQLITE = {
    "update a state": "UPDATE events SET state = x'00' WHERE position = 1",
    "update a position": "UPDATE events SET position = 99 WHERE position = 3",
    "update a time": "UPDATE events SET recorded_at = 1",
    "update or replace": "UPDATE OR REPLACE events SET position = 1 WHERE position = 2",
    "delete the last": "DELETE FROM events WHERE position = 3",
    "delete all": "DELETE FROM events",
    "replace by position": f"INSERT OR REPLACE INTO events VALUES (2, 1, 9, {_ROW})",
    "replace the last": f"REPLACE INTO events VALUES (3, 2, 1, {_ROW})",
    "replace by version": f"INSERT OR REPLACE INTO events VALUES (4, 1, 1, {_ROW})",
    "replace by newest version": f"INSERT OR REPLACE INTO events VALUES (4, 1, 2, {_ROW})",
    "replace by key": "INSERT OR REPLACE INTO events SELECT 4, 1, 3, type, recorded_at, key, "
    "append_id, state FROM events WHERE key IS NOT NULL",
    "insert with a taken version": f"INSERT INTO events VALUES (4, 1, 2, {_ROW})",
    "upsert": f"INSERT INTO events VALUES (2, 1, 9, {_ROW}) "
    "ON CONFLICT (position) DO UPDATE SET state = x'00'",
    "a gap": f"INSERT INTO events VALUES (5, 1, 3, {_ROW})",
    "before the first": f"INSERT INTO events VALUES (0, 1, 3, {_ROW})",
    "of no stream": f"INSERT INTO events VALUES (4, 77, 1, {_ROW})",
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

_TO = "(position, stream_id, version, type, recorded_at, append_id, state, key)"


def _forged(position: str, stream: int, version: int, *, key: str = "NULL") -> str:
    """Insert one event, behind a head that was moved as the program moves it."""
    return (
        "WITH h AS (UPDATE head SET position = position + 1, recorded_at = recorded_at + 1 "
        f"RETURNING position, recorded_at) INSERT INTO events {_TO} SELECT {position}, {stream}, "
        f"{version}, 'Forged', recorded_at, decode(repeat('00', 16), 'hex'), '', {key} FROM h"
    )


_UPSERT = " ON CONFLICT ({}) DO UPDATE SET state = excluded.state, type = excluded.type"

POSTGRES = {
    "update a state": "UPDATE events SET state = '\\x00' WHERE position = 1",
    "update a position": "UPDATE events SET position = 99 WHERE position = 3",
    "update a time": "UPDATE events SET recorded_at = 1",
    "update or replace": "MERGE INTO events e USING (VALUES (2)) v (p) ON e.position = v.p "
    "WHEN MATCHED THEN UPDATE SET state = '\\x00'",
    "delete the last": "DELETE FROM events WHERE position = 3",
    "delete all": "TRUNCATE events",
    "replace by position": _forged("2", 1, 9) + _UPSERT.format("position"),
    "replace the last": _forged("3", 2, 1) + _UPSERT.format("position"),
    "replace by version": _forged("position", 1, 1) + _UPSERT.format("stream_id, version"),
    "replace by newest version": _forged("position", 1, 2) + _UPSERT.format("stream_id, version"),
    "replace by key": _forged(
        "position", 1, 3, key="(SELECT key FROM events WHERE key IS NOT NULL)"
    )
    + " ON CONFLICT (key) WHERE key IS NOT NULL DO UPDATE SET state = excluded.state",
    "insert with a taken version": _forged("position", 1, 2),
    "upsert": _forged("position", 1, 3) + _UPSERT.format("position"),
    "a gap": _forged("position + 1", 1, 3),
    "before the first": _forged("0", 1, 3),
    "of no stream": _forged("position", 77, 1),
    "the head back": "UPDATE head SET position = position - 1",
    "the epoch back": "UPDATE head SET epoch = 0",
    "the time back": "UPDATE head SET recorded_at = 1",
    "no head": "DELETE FROM head",
    "another head": "INSERT INTO head VALUES (2, 1, 0, 0)",
    "replace the head": "INSERT INTO head VALUES (1, 1, 0, 0) "
    "ON CONFLICT (id) DO UPDATE SET position = excluded.position",
    "rename a stream": "UPDATE streams SET name = 'user/mallory' WHERE id = 1",
    "renumber a stream": "UPDATE streams SET id = 7 WHERE id = 1",
    "delete a stream": "DELETE FROM streams WHERE id = 1",
    "replace a stream by id": "INSERT INTO streams VALUES (1, 'user/mallory', 2) "
    "ON CONFLICT (id) DO UPDATE SET name = excluded.name",
    "replace a stream by id, empty": "INSERT INTO streams VALUES (1, 'user/eve', 0) "
    "ON CONFLICT (id) DO UPDATE SET name = excluded.name, version = 0",
    "replace a stream by name": "INSERT INTO streams VALUES (9, 'user/ana', 0) "
    "ON CONFLICT (name) DO UPDATE SET id = excluded.id",
    "upsert a stream": "INSERT INTO streams VALUES (1, 'user/ana', 0) "
    "ON CONFLICT (id) DO UPDATE SET name = 'user/mallory'",
    "a stream's head back": "UPDATE streams SET version = 0",
    "a stream's head forward": "UPDATE streams SET version = 9 WHERE id = 1",
    "a stream born with a past": "INSERT INTO streams VALUES (9, 'user/mallory', 5)",
}

FORGERIES = {"sqlite": SQLITE, "postgres": POSTGRES}

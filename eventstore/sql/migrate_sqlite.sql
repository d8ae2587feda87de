-- mark: How far a copy is, and of what; there is no such table in a log.
CREATE TABLE copying (
    epoch        INTEGER NOT NULL,
    position     INTEGER NOT NULL,
    recorded_at  INTEGER NOT NULL
);

-- insert_mark: Which head is being copied.
INSERT INTO copying (epoch, position, recorded_at) VALUES (?, ?, ?);

-- select_is_marked: Whether this is a copy in the making.
SELECT count(*) FROM sqlite_master WHERE name = 'copying';

-- select_mark: Which head is being copied.
SELECT epoch, position, recorded_at FROM copying;

-- select_reached: The last stream and the last event.
SELECT coalesce((SELECT max(id) FROM streams), 0), coalesce((SELECT max(position) FROM events), 0);

-- select_head: Where a log ends.
SELECT epoch, position, recorded_at FROM head;

-- select_streams: A page of streams.
SELECT id, name, version FROM streams WHERE id > ? ORDER BY id LIMIT ?;

-- select_events: A page of events.
SELECT position, stream_id, version, type, recorded_at, key, append_id, state
  FROM events WHERE position > ? AND position <= ? ORDER BY position;

-- insert_stream: A stream as it is in the source.
INSERT INTO streams (id, name, version) VALUES (?, ?, ?);

-- insert_event: An event as it is in the source.
INSERT INTO events (position, stream_id, version, type, recorded_at, key, append_id, state)
VALUES (?, ?, ?, ?, ?, ?, ?, ?);

-- insert_head: The head of a complete copy.
INSERT INTO head (id, epoch, position, recorded_at) VALUES (1, ?, ?, ?);

-- unmark: The copy is a log.
DROP TABLE copying;

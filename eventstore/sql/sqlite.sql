-- schema: The tables of one log. `head` has one row; `events` can only grow, at its end.
CREATE TABLE IF NOT EXISTS head (
    id           INTEGER PRIMARY KEY CHECK (id = 1),
    epoch        INTEGER NOT NULL,
    position     INTEGER NOT NULL,
    recorded_at  INTEGER NOT NULL
);
INSERT INTO head SELECT 1, 1, 0, 0 WHERE NOT EXISTS (SELECT 1 FROM head);
CREATE TABLE IF NOT EXISTS streams (
    id       INTEGER PRIMARY KEY CHECK (id > 0),
    name     TEXT    NOT NULL UNIQUE,
    version  INTEGER NOT NULL
);
CREATE TABLE IF NOT EXISTS events (
    position     INTEGER PRIMARY KEY,
    stream_id    INTEGER NOT NULL,
    version      INTEGER NOT NULL,
    type         TEXT    NOT NULL,
    recorded_at  INTEGER NOT NULL,
    key          BLOB,
    append_id    BLOB    NOT NULL,
    state        BLOB    NOT NULL
);
CREATE UNIQUE INDEX IF NOT EXISTS events_stream_version ON events (stream_id, version);
CREATE UNIQUE INDEX IF NOT EXISTS events_key ON events (key) WHERE key IS NOT NULL;
CREATE TRIGGER IF NOT EXISTS events_append_only BEFORE INSERT ON events BEGIN
    SELECT RAISE(ABORT, 'hilo: gap: position must be the last + 1')
     WHERE new.position <> (SELECT coalesce(max(position), 0) + 1 FROM events);
    SELECT RAISE(ABORT, 'hilo: gap: version must be the stream''s last + 1')
     WHERE new.version <> (SELECT version FROM streams WHERE id = new.stream_id) + 1
       AND NOT (new.version = 0 AND NOT EXISTS (SELECT 1 FROM events WHERE stream_id = new.stream_id));
    SELECT RAISE(ABORT, 'hilo: key taken')
     WHERE new.key IS NOT NULL AND EXISTS (SELECT 1 FROM events WHERE key = new.key);
END;
CREATE TRIGGER IF NOT EXISTS events_stream_head AFTER INSERT ON events BEGIN
    UPDATE streams SET version = new.version WHERE id = new.stream_id;
    SELECT RAISE(ABORT, 'hilo: no such stream') WHERE changes() = 0;
END;
CREATE TRIGGER IF NOT EXISTS events_no_update BEFORE UPDATE ON events BEGIN
    SELECT RAISE(ABORT, 'hilo: the log is append-only: UPDATE refused');
END;
CREATE TRIGGER IF NOT EXISTS events_no_delete BEFORE DELETE ON events BEGIN
    SELECT RAISE(ABORT, 'hilo: the log is append-only: DELETE refused');
END;
CREATE TRIGGER IF NOT EXISTS head_only_forward BEFORE UPDATE ON head
WHEN new.position < old.position OR new.epoch < old.epoch OR new.recorded_at < old.recorded_at BEGIN
    SELECT RAISE(ABORT, 'hilo: the head never moves back');
END;
CREATE TRIGGER IF NOT EXISTS head_no_other BEFORE INSERT ON head
WHEN EXISTS (SELECT 1 FROM head) BEGIN
    SELECT RAISE(ABORT, 'hilo: the head is one row and is not replaced');
END;
CREATE TRIGGER IF NOT EXISTS head_no_delete BEFORE DELETE ON head BEGIN
    SELECT RAISE(ABORT, 'hilo: the head row stays');
END;
CREATE TRIGGER IF NOT EXISTS streams_born_empty BEFORE INSERT ON streams
WHEN new.version <> 0
  OR EXISTS (SELECT 1 FROM streams WHERE id = new.id OR name = new.name) BEGIN
    SELECT RAISE(ABORT, 'hilo: a stream is born once, with no events');
END;
CREATE TRIGGER IF NOT EXISTS streams_follow_events BEFORE UPDATE OF version ON streams
WHEN new.version <> (SELECT max(version) FROM events WHERE stream_id = old.id) BEGIN
    SELECT RAISE(ABORT, 'hilo: the head of a stream is its last event');
END;
CREATE TRIGGER IF NOT EXISTS streams_no_delete BEFORE DELETE ON streams BEGIN
    SELECT RAISE(ABORT, 'hilo: streams stay');
END;
CREATE TRIGGER IF NOT EXISTS streams_no_rename BEFORE UPDATE ON streams
WHEN new.id <> old.id OR new.name <> old.name BEGIN
    SELECT RAISE(ABORT, 'hilo: streams keep their names');
END;
CREATE TABLE IF NOT EXISTS snapshots (
    stream_id  INTEGER PRIMARY KEY,
    version    INTEGER NOT NULL,
    epoch      INTEGER NOT NULL,
    shape      BLOB    NOT NULL,
    state      BLOB    NOT NULL
);
CREATE TABLE IF NOT EXISTS nodes (
    node         TEXT PRIMARY KEY,
    incarnation  TEXT    NOT NULL,
    release      TEXT    NOT NULL,
    started_at   INTEGER NOT NULL,
    beat_at      INTEGER NOT NULL,
    status       BLOB    NOT NULL DEFAULT x''
) WITHOUT ROWID;

-- has_node_status: Whether the table of nodes has their own words, which logs of old have not.
SELECT count(*) FROM pragma_table_info('nodes') WHERE name = 'status';

-- add_node_status: Nodes say something of themselves.
ALTER TABLE nodes ADD COLUMN status BLOB NOT NULL DEFAULT x'';

-- select_head: Where the log ends.
SELECT epoch, position, recorded_at FROM head;

-- advance_head: Move the head, if it still is where the writer left it.
UPDATE head SET position = ?, recorded_at = ? WHERE epoch = ? AND position = ?;

-- select_stream: A stream's id and version by name.
SELECT id, version FROM streams WHERE name = ?;

-- insert_stream: A stream is born with its first event.
INSERT INTO streams (name, version) VALUES (?, 0);

-- select_append_ids: Which appends are in the log after a position (settles an unknown COMMIT).
SELECT append_id, min(position), max(position), max(version), max(recorded_at)
  FROM events WHERE position > ? GROUP BY append_id;

-- read_stream: One stream, oldest first.
SELECT e.position, e.version, e.type, e.recorded_at, e.key, e.append_id, e.state
  FROM events e JOIN streams s ON s.id = e.stream_id
 WHERE s.name = ? AND e.version > ? AND e.version <= ? ORDER BY e.version LIMIT ?;

-- read_all: The log, oldest first.
SELECT e.position, s.name, e.version, e.type, e.recorded_at, e.key, e.append_id, e.state
  FROM events e CROSS JOIN streams s ON s.id = e.stream_id
 WHERE e.position > ? AND e.position <= ? ORDER BY e.position LIMIT ?;

-- read_types: The log, some types only, oldest first. `types` is replaced by placeholders.
SELECT e.position, s.name, e.version, e.type, e.recorded_at, e.key, e.append_id, e.state
  FROM events e CROSS JOIN streams s ON s.id = e.stream_id
 WHERE e.position > ? AND e.position <= ? AND e.type IN (/*types*/) ORDER BY e.position LIMIT ?;

-- read_holding: The log, only what holds some bytes in its state, oldest first.
SELECT e.position, s.name, e.version, e.type, e.recorded_at, e.key, e.append_id, e.state
  FROM events e CROSS JOIN streams s ON s.id = e.stream_id
 WHERE e.position > ? AND e.position <= ? AND instr(e.state, ?) > 0 ORDER BY e.position LIMIT ?;

-- scan_all: The log for read models that want nearly all of it, oldest first. Streams by number.
SELECT position, stream_id, type, recorded_at, state FROM events
 WHERE position > ? AND position <= ? ORDER BY position;

-- scan_types: Some types of the log for a read model, oldest first. Streams by number.
SELECT position, stream_id, type, recorded_at, state FROM events
 WHERE position > ? AND position <= ? AND type IN (/*types*/) ORDER BY position;

-- select_stream_names: What stream numbers (a JSON array) stand for.
SELECT id, name FROM streams WHERE id IN (SELECT value FROM json_each(?));

-- last_of_append: The last position of the append that an event belongs to.
SELECT coalesce(
    (SELECT position - 1 FROM events
      WHERE position > :position AND append_id <> (SELECT append_id FROM events WHERE position = :position)
      ORDER BY position LIMIT 1),
    (SELECT max(position) FROM events));

-- read_position: One event by its position.
SELECT e.position, s.name, e.version, e.type, e.recorded_at, e.key, e.append_id, e.state
  FROM events e JOIN streams s ON s.id = e.stream_id WHERE e.position = ?;

-- read_key: One event by its idempotency key.
SELECT e.position, s.name, e.version, e.type, e.recorded_at, e.key, e.append_id, e.state
  FROM events e JOIN streams s ON s.id = e.stream_id WHERE e.key = ?;

-- select_time: When the event at a position was recorded.
SELECT recorded_at FROM events WHERE position = ?;

-- list_streams: Streams by prefix, in the order of their birth.
SELECT id, name, version FROM streams
 WHERE id > ? AND name >= ? AND name < ? ORDER BY id LIMIT ?;

-- count_types: How many events of each type.
SELECT type, count(*) FROM events GROUP BY type ORDER BY count(*) DESC, type;

-- select_snapshot: The snapshot of a stream, if it fits the log's epoch and is not above its head.
SELECT n.version, n.epoch, n.shape, n.state
  FROM snapshots n JOIN streams s ON s.id = n.stream_id
 WHERE s.name = ? AND n.epoch = (SELECT epoch FROM head) AND n.version <= s.version;

-- upsert_snapshot: Keep the newest snapshot of a stream that fits the log.
INSERT INTO snapshots (stream_id, version, epoch, shape, state)
SELECT id, ?2, ?3, ?4, ?5 FROM streams
 WHERE name = ?1 AND ?2 <= version AND ?3 = (SELECT epoch FROM head)
    ON CONFLICT (stream_id) DO UPDATE SET version = excluded.version, epoch = excluded.epoch,
       shape = excluded.shape, state = excluded.state
 WHERE excluded.version >= snapshots.version OR excluded.epoch <> snapshots.epoch
    OR snapshots.version > (SELECT version FROM streams WHERE id = snapshots.stream_id);

-- upsert_node: A node says that it lives.
INSERT INTO nodes (node, incarnation, release, started_at, beat_at, status)
VALUES (?, ?, ?, ?, ?, ?)
    ON CONFLICT (node) DO UPDATE SET incarnation = excluded.incarnation,
       release = excluded.release, started_at = excluded.started_at, beat_at = excluded.beat_at,
       status = excluded.status;

-- select_nodes: Every node that beat, but for those that were forgotten.
SELECT node, incarnation, release, started_at, beat_at, status FROM nodes ORDER BY node;

-- forget_nodes: Nodes that have been silent for long.
DELETE FROM nodes WHERE beat_at < ?;

-- forget_node: A node that has ended, unless another process has taken its name.
DELETE FROM nodes WHERE node = ? AND incarnation = ?;

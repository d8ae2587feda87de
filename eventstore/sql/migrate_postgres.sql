-- lock_copy: One copy into a schema at a time, for as long as this session lasts.
SELECT pg_try_advisory_lock(hashtextextended('hilo copy/' || %s::text, 0));

-- select_is_marked: Whether this is a copy in the making.
SELECT to_regclass('copying') IS NOT NULL;

-- select_is_log: Whether there is a log at all.
SELECT to_regclass('head') IS NOT NULL;

-- select_mark: Which head is being copied, and how far the copy is.
SELECT epoch, position, recorded_at, stream, reached FROM copying;

-- select_is_empty: Whether the log has never been written.
SELECT position = 0 AND NOT EXISTS (SELECT FROM streams) AND NOT EXISTS (SELECT FROM events)
  FROM head;

-- select_ends: The last stream and the last event of a log.
SELECT coalesce((SELECT max(id) FROM streams), 0), position FROM head;

-- mark: From here on nobody opens the log, and nothing slows the copy down.
LOCK TABLE head, streams, events IN ACCESS EXCLUSIVE MODE;
CREATE TABLE copying (
    epoch        bigint NOT NULL,
    position     bigint NOT NULL,
    recorded_at  bigint NOT NULL,
    stream       bigint NOT NULL,
    reached      bigint NOT NULL,
    rebuild      text[] NOT NULL
);
INSERT INTO copying
SELECT 0, 0, 0, 0, 0, array_agg(statement ORDER BY statement) FROM (
    SELECT format('ALTER TABLE events ADD CONSTRAINT %I %s', conname, pg_get_constraintdef(oid))
      FROM pg_constraint WHERE conrelid = 'events'::regclass AND contype IN ('p', 'u')
    UNION ALL
    SELECT pg_get_indexdef(indexrelid) FROM pg_index
     WHERE indrelid = 'events'::regclass
       AND NOT EXISTS (SELECT FROM pg_constraint WHERE conindid = indexrelid)
) AS indexes (statement);
DO $$
DECLARE
    statement text;
BEGIN
    FOR statement IN
        SELECT format('ALTER TABLE events DROP CONSTRAINT %I', conname)
          FROM pg_constraint WHERE conrelid = 'events'::regclass AND contype IN ('p', 'u')
        UNION ALL
        SELECT format('DROP INDEX %s', indexrelid::regclass) FROM pg_index
         WHERE indrelid = 'events'::regclass
           AND NOT EXISTS (SELECT FROM pg_constraint WHERE conindid = indexrelid)
    LOOP
        EXECUTE statement;
    END LOOP;
END $$;
ALTER TABLE events DISABLE TRIGGER USER;
ALTER TABLE streams DISABLE TRIGGER USER;
ALTER TABLE head DISABLE TRIGGER USER;
DELETE FROM head;

-- insert_mark: Which head is being copied.
UPDATE copying SET epoch = %s, position = %s, recorded_at = %s;

-- note_stream: How far the streams are; committed with them.
UPDATE copying SET stream = %s;

-- note_position: How far the events are; committed with them.
UPDATE copying SET reached = %s;

-- select_rebuild: The indexes that are still to be built.
SELECT rebuild FROM copying;

-- note_built: The first of them is there; committed with it.
UPDATE copying SET rebuild = rebuild[2:];

-- insert_head: The head of a complete copy.
INSERT INTO head (id, epoch, position, recorded_at) VALUES (1, %s, %s, %s);

-- unmark: The copy is a log.
ALTER TABLE events ENABLE TRIGGER USER;
ALTER TABLE streams ENABLE TRIGGER USER;
ALTER TABLE head ENABLE TRIGGER USER;
DROP TABLE copying;

-- stop_appends: Nobody appends for as long as this transaction is open.
SELECT FROM head FOR SHARE;

-- select_beating: The nodes that beat within the last µs.
SELECT node FROM nodes WHERE beat_at > now_micros() - %s ORDER BY node;

-- select_head: Where a log ends.
SELECT epoch, position, recorded_at FROM head;

-- select_streams: A page of streams.
SELECT id, name, version FROM streams WHERE id > %s ORDER BY id LIMIT %s;

-- select_events: A page of events.
SELECT position, stream_id, version, type, recorded_at, key, append_id, state
  FROM events WHERE position > %s AND position <= %s ORDER BY position;

-- copy_streams: Streams as they are in the source.
COPY streams (id, name, version) FROM STDIN (FORMAT binary);

-- copy_events: Events as they are in the source.
COPY events (position, stream_id, version, recorded_at, type, key, append_id, state)
FROM STDIN (FORMAT binary);

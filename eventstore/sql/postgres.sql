-- append: A batch of appends in one statement; see `append_1` in migration 0001.
SELECT * FROM append_1(%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s);

-- keep_snapshot: Keep the newest snapshot of a stream that fits the log.
SELECT keep_snapshot_1(%s, %s, %s, %s, %s);

-- beat: A node says that it lives; answers with the store's time.
SELECT beat_1(%s, %s, %s, %s, %s, %s);

-- select_now: The store's time in µs.
SELECT now_micros();

-- select_head: Where the log ends.
SELECT epoch, position, recorded_at FROM head;

-- select_stream: A stream's id and version by name.
SELECT id, version FROM streams WHERE name = %s;

-- select_append_ids: Which of some appends stand after a position (settles an unknown COMMIT).
SELECT append_id, min(position), max(position), max(version), max(recorded_at)
  FROM events WHERE position > %s AND append_id = ANY (%s) GROUP BY append_id;

-- select_append_at: Whose append stands at a position.
SELECT append_id FROM events WHERE position = %s;

-- confirm: Commit something: that ends when all that was committed before is as safe as is asked for.
SELECT pg_logical_emit_message(true, 'hilo', '');

-- select_backend: What tells this connection's server process from a later one of the same number.
SELECT pid, backend_start::text FROM pg_stat_activity WHERE pid = pg_backend_pid();

-- end_backend: End a server process that may still hold a statement of ours; nothing if it is gone.
SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid = %s AND backend_start::text = %s;

-- read_stream: One stream, oldest first.
SELECT e.position, e.version, e.type, e.recorded_at, e.key, e.append_id, e.state
  FROM events e JOIN streams s ON s.id = e.stream_id
 WHERE s.name = %s AND e.version > %s AND e.version <= %s ORDER BY e.version LIMIT %s;

-- read_all: The log, oldest first.
SELECT e.position, s.name, e.version, e.type, e.recorded_at, e.key, e.append_id, e.state
  FROM (SELECT * FROM events WHERE position > %s AND position <= %s ORDER BY position LIMIT %s) e
  JOIN streams s ON s.id = e.stream_id ORDER BY e.position;

-- read_types: The log, some types only, oldest first.
SELECT e.position, s.name, e.version, e.type, e.recorded_at, e.key, e.append_id, e.state
  FROM (SELECT * FROM events WHERE position > %s AND position <= %s AND type = ANY (%s)
         ORDER BY position LIMIT %s) e
  JOIN streams s ON s.id = e.stream_id ORDER BY e.position;

-- read_holding: The log, only what holds some bytes in its state, oldest first.
SELECT e.position, s.name, e.version, e.type, e.recorded_at, e.key, e.append_id, e.state
  FROM (SELECT * FROM events WHERE position > %s AND position <= %s AND position(%s IN state) > 0
         ORDER BY position LIMIT %s) e
  JOIN streams s ON s.id = e.stream_id ORDER BY e.position;

-- scan_all: The log for read models that want nearly all of it, oldest first. Streams by number.
SELECT position, stream_id, type, recorded_at, state FROM events
 WHERE position > %s AND position <= %s ORDER BY position;

-- scan_types: Some types of the log for a read model, oldest first. Streams by number.
SELECT position, stream_id, type, recorded_at, state FROM events
 WHERE position > %s AND position <= %s AND type = ANY (%s) ORDER BY position;

-- select_stream_names: What stream numbers stand for.
SELECT id, name FROM streams WHERE id = ANY (%s);

-- last_of_append: The last position of the append that an event belongs to.
SELECT coalesce(
    (SELECT position - 1 FROM events
      WHERE position > %(position)s
        AND append_id <> (SELECT append_id FROM events WHERE position = %(position)s)
      ORDER BY position LIMIT 1),
    (SELECT max(position) FROM events));

-- read_position: One event by its position.
SELECT e.position, s.name, e.version, e.type, e.recorded_at, e.key, e.append_id, e.state
  FROM events e JOIN streams s ON s.id = e.stream_id WHERE e.position = %s;

-- read_key: One event by its idempotency key.
SELECT e.position, s.name, e.version, e.type, e.recorded_at, e.key, e.append_id, e.state
  FROM events e JOIN streams s ON s.id = e.stream_id WHERE e.key = %s;

-- position_at: The last position recorded at or before an instant, by bisection: times never decrease.
WITH RECURSIVE narrowed (low, high) AS (
    SELECT 0::bigint, position FROM head
    UNION ALL
    SELECT CASE WHEN early THEN middle ELSE low END, CASE WHEN early THEN high ELSE middle - 1 END
      FROM (SELECT low, high, (low + high + 1) / 2 AS middle,
                   (SELECT recorded_at <= %s FROM events WHERE position = (low + high + 1) / 2) AS early
              FROM narrowed WHERE low < high) AS halved
)
SELECT low FROM narrowed WHERE low = high;

-- list_streams: Streams by prefix, in the order of their birth.
SELECT id, name, version FROM streams
 WHERE id > %s AND name >= %s AND name < %s ORDER BY id LIMIT %s;

-- count_types: How many events of each type.
SELECT type, count(*) FROM events GROUP BY type ORDER BY count(*) DESC, type;

-- select_snapshot: The snapshot of a stream, if it fits the log's epoch and is not above its head.
SELECT n.version, n.epoch, n.shape, n.state
  FROM snapshots n JOIN streams s ON s.id = n.stream_id
 WHERE s.name = %s AND n.epoch = (SELECT epoch FROM head) AND n.version <= s.version;

-- select_nodes: Every node that beat, but for those that were forgotten.
SELECT node, incarnation, release, started_at, beat_at, status FROM nodes ORDER BY node;

-- forget_nodes: Nodes that have been silent for long.
DELETE FROM nodes WHERE beat_at < %s;

-- forget_node: A node that has ended, unless another process has taken its name.
DELETE FROM nodes WHERE node = %s AND incarnation = %s;

-- size: The bytes of a schema's tables, indexes included.
SELECT coalesce(sum(pg_total_relation_size(oid)), 0)::bigint FROM pg_class
 WHERE relkind = 'r' AND relnamespace = %s::text::regnamespace;

-- notify: Say on a channel how far the log goes.
SELECT pg_notify(%s, %s);

-- settings: What a session of the log must know of its server.
SELECT current_setting('server_encoding'), current_setting('synchronous_commit');

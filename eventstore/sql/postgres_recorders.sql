-- advance: Lock the head's row and move it past some more events. First: what follows sees all that was committed before.
UPDATE head SET position = position + %s, recorded_at = greatest(now_micros(), recorded_at + 1)
RETURNING position, recorded_at;

-- add_streams: Number those of the streams that are new, in the order of their birth.
INSERT INTO streams (id, name, version)
SELECT coalesce((SELECT max(id) FROM streams), 0) + row_number() OVER (ORDER BY n.no), n.name, 0
  FROM unnest(%s::text[]) WITH ORDINALITY AS n (name, no)
 WHERE NOT EXISTS (SELECT FROM streams s WHERE s.name = n.name);

-- add_events: Insert the events of one append after a position.
INSERT INTO events (position, stream_id, version, recorded_at, type, append_id, state)
SELECT %s + e.no, s.id, e.version, %s, e.type, %s, e.state
  FROM unnest(%s::text[], %s::bigint[], %s::text[], %s::bytea[])
       WITH ORDINALITY AS e (name, version, type, state, no)
  JOIN streams s ON s.name = e.name;

-- wait_for_head: Return when no other transaction that appends is under way.
SELECT position FROM head FOR UPDATE;

-- found: Whether an append stands at a position.
SELECT count(*) AS found FROM events WHERE position = %s AND append_id = %s;

-- select_last: The last position.
SELECT position FROM head;

-- select_events: One stream, in either order.
SELECT e.version, e.type, e.state FROM events e JOIN streams s ON s.id = e.stream_id
 WHERE s.name = %s AND e.version > %s AND e.version <= %s
 ORDER BY e.version /*order*/ LIMIT %s;

-- select_notifications: The log, of all types or of some, oldest first.
SELECT e.position, s.name, e.version, e.type, e.state
  FROM (SELECT * FROM events
         WHERE position > %(after)s AND position <= %(stop)s
           AND (%(topics)s::text[] IS NULL OR type = ANY (%(topics)s))
         ORDER BY position LIMIT %(limit)s) e
  JOIN streams s ON s.id = e.stream_id ORDER BY e.position;

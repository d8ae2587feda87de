-- oldest: 1
-- The tables of one log, in the schema that `search_path` names. `head` has one row; `events` can
-- only grow, at its end. Whoever writes locks the head's row first: positions are committed in order.
CREATE TABLE head (
    id           integer PRIMARY KEY CHECK (id = 1),
    epoch        bigint NOT NULL,
    position     bigint NOT NULL,
    recorded_at  bigint NOT NULL
) WITH (fillfactor = 10);
INSERT INTO head VALUES (1, 1, 0, 0);

CREATE TABLE streams (
    id       bigint PRIMARY KEY CHECK (id > 0),
    name     text COLLATE "C" NOT NULL UNIQUE,
    version  bigint NOT NULL
) WITH (fillfactor = 70);

CREATE TABLE events (
    position     bigint PRIMARY KEY CHECK (position > 0),
    stream_id    bigint NOT NULL,
    version      bigint NOT NULL,
    recorded_at  bigint NOT NULL,
    type         text COLLATE "C" NOT NULL,
    key          bytea,
    append_id    bytea NOT NULL,
    state        bytea NOT NULL
);
CREATE UNIQUE INDEX events_stream_version ON events (stream_id, version);
CREATE UNIQUE INDEX events_key ON events (key) WHERE key IS NOT NULL;

CREATE TABLE snapshots (
    stream_id  bigint PRIMARY KEY,
    version    bigint NOT NULL,
    epoch      bigint NOT NULL,
    shape      bytea  NOT NULL,
    state      bytea  NOT NULL
);

CREATE TABLE nodes (
    node         text COLLATE "C" PRIMARY KEY,
    incarnation  text   NOT NULL,
    release      text   NOT NULL,
    started_at   bigint NOT NULL,
    beat_at      bigint NOT NULL,
    status       bytea  NOT NULL
);

-- What the database refuses, whoever asks. ------------------------------------------------------

CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'hilo: the log is append-only: % of % refused', TG_OP, TG_TABLE_NAME
        USING ERRCODE = 'integrity_constraint_violation';
END $$;

CREATE TRIGGER events_stay BEFORE UPDATE OR DELETE OR TRUNCATE ON events
    FOR EACH STATEMENT EXECUTE FUNCTION refuse();
CREATE TRIGGER streams_stay BEFORE DELETE OR TRUNCATE ON streams
    FOR EACH STATEMENT EXECUTE FUNCTION refuse();
CREATE TRIGGER head_stays BEFORE INSERT OR DELETE OR TRUNCATE ON head
    FOR EACH STATEMENT EXECUTE FUNCTION refuse();
CREATE TRIGGER streams_are_born_empty BEFORE INSERT ON streams
    FOR EACH ROW WHEN (new.version <> 0) EXECUTE FUNCTION refuse();
-- Only the trigger on events, below, moves a stream's version: at depth 0 it is somebody else.
CREATE TRIGGER streams_follow_events BEFORE UPDATE ON streams
    FOR EACH STATEMENT WHEN (pg_trigger_depth() = 0) EXECUTE FUNCTION refuse();
CREATE TRIGGER head_only_forward BEFORE UPDATE ON head
    FOR EACH ROW WHEN (
        new.id <> old.id OR new.epoch < old.epoch
        OR new.position < old.position OR new.recorded_at < old.recorded_at
    ) EXECUTE FUNCTION refuse();

-- Inserted events continue the log and their streams without a gap, behind a head that has moved
-- already: that is, whoever inserts holds the lock. A stream's head is moved here, and only here.
--
-- The settings: a plan that was made while the log was empty is kept by its session, and would read
-- all streams for each batch until statistics are gathered. Indexes are always the right way here.
CREATE FUNCTION check_added() RETURNS trigger LANGUAGE plpgsql VOLATILE
    SET search_path FROM CURRENT SET enable_seqscan = off SET enable_hashjoin = off
    SET enable_mergejoin = off AS $$
DECLARE
    low bigint; high bigint; total bigint; wanted bigint; moved bigint;
BEGIN
    SELECT min(position), max(position), count(*), count(DISTINCT stream_id)
      INTO low, high, total, wanted FROM added;
    IF total = 0 THEN
        RETURN NULL;
    END IF;
    IF high - low + 1 <> total
       OR low <> 1 + coalesce((SELECT max(position) FROM events WHERE position < low), 0) THEN
        RAISE EXCEPTION 'hilo: gap: position must be the last + 1'
            USING ERRCODE = 'integrity_constraint_violation';
    END IF;
    IF high > (SELECT position FROM head) THEN
        RAISE EXCEPTION 'hilo: the head moves before events are inserted'
            USING ERRCODE = 'integrity_constraint_violation';
    END IF;
    UPDATE streams AS s SET version = a.high
      FROM (SELECT stream_id, min(version) AS low, max(version) AS high, bool_and(in_line) AS in_line
              FROM (SELECT stream_id, version,
                           version = 1 + coalesce(lag(version) OVER w, version - 1) AS in_line
                      FROM added WINDOW w AS (PARTITION BY stream_id ORDER BY position)) AS every
             GROUP BY stream_id) AS a
     WHERE s.id = a.stream_id AND a.in_line
       AND (a.low = s.version + 1 OR (a.low = 0 AND s.version = 0));
    GET DIAGNOSTICS moved = ROW_COUNT;
    IF moved <> wanted THEN
        RAISE EXCEPTION 'hilo: gap: version must be the stream''s last + 1, of a stream that exists'
            USING ERRCODE = 'integrity_constraint_violation';
    END IF;
    RETURN NULL;
END $$;
CREATE TRIGGER events_in_line AFTER INSERT ON events REFERENCING NEW TABLE AS added
    FOR EACH STATEMENT EXECUTE FUNCTION check_added();

-- When a transaction ends, the head is the last event.
CREATE FUNCTION check_head() RETURNS trigger LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
BEGIN
    IF new.position = old.position
       OR (SELECT position FROM head) = (SELECT max(position) FROM events) THEN
        RETURN NULL;
    END IF;
    RAISE EXCEPTION 'hilo: the head is the last event'
        USING ERRCODE = 'integrity_constraint_violation';
END $$;
CREATE CONSTRAINT TRIGGER head_is_the_last_event AFTER UPDATE ON head
    DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION check_head();

-- What the program asks for. ---------------------------------------------------------------------

CREATE FUNCTION now_micros() RETURNS bigint LANGUAGE sql VOLATILE
    RETURN (extract(epoch FROM clock_timestamp()) * 1000000)::bigint;

-- One batch of many callers: every append is decided as if it were alone, in their order, while the
-- head's row is locked. Nothing is written for one that is refused.
--
-- For each append: its stream (a place in `names`), the version and epoch it expects, its size, and
-- up to where the keys it wants absent go in `wanted`: first its events' own (up to `own_until`),
-- then others (up to `until`). `contested`: some key is in `wanted` twice. For each event: its
-- append, its place in it from 1 on, type, key and state. `held_clock` is the tests' clock.
--
-- Answers, for each append: 0 done, 1 another epoch, 2 another version, 3 a key is taken; its first
-- position; the stream's version, now; its time; the key that is taken. And the epoch and the time.
CREATE FUNCTION append_1(
    held_clock bigint, names text[], contested boolean, wanted bytea[],
    stream_no bigint[], expected bigint[], epochs bigint[], sizes bigint[], append_ids bytea[],
    own_until bigint[], until bigint[],
    append_no bigint[], place bigint[], types text[], keys bytea[], states bytea[],
    OUT epoch bigint, OUT answered_at bigint, OUT outcomes bigint[], OUT firsts bigint[],
    OUT versions bigint[], OUT times bigint[], OUT taken_keys bytea[]
) LANGUAGE plpgsql VOLATILE
    SET search_path FROM CURRENT SET enable_seqscan = off SET enable_hashjoin = off
    SET enable_mergejoin = off AS $$
DECLARE
    h head%ROWTYPE;
    ids bigint[];
    heads bigint[];
    befores bigint[] := '{}';
    taken bytea[] := '{}';
    found bytea;
    outcome bigint;
    key_from bigint := 1;
    k bigint;
    last_id bigint;
BEGIN
    outcomes := '{}'; firsts := '{}'; versions := '{}'; times := '{}'; taken_keys := '{}';
    SELECT * INTO h FROM head FOR NO KEY UPDATE;
    epoch := h.epoch;
    SELECT array_agg(coalesce(s.id, 0) ORDER BY n.no), array_agg(coalesce(s.version, 0) ORDER BY n.no)
      INTO ids, heads
      FROM unnest(names) WITH ORDINALITY AS n (name, no) LEFT JOIN streams s ON s.name = n.name;
    IF cardinality(wanted) > 0 THEN
        taken := ARRAY(SELECT e.key FROM unnest(wanted) AS w (key) JOIN events e ON e.key = w.key);
        contested := contested OR cardinality(taken) > 0;
    END IF;
    h.recorded_at := greatest(coalesce(held_clock, now_micros()) - 1, h.recorded_at);
    FOR i IN 1 .. cardinality(stream_no) LOOP
        k := stream_no[i];
        outcome := 0;
        found := NULL;
        IF epochs[i] <> h.epoch THEN
            outcome := 1;
        ELSIF expected[i] <> heads[k] THEN
            outcome := 2;
        ELSIF contested THEN
            FOR j IN key_from .. until[i] LOOP
                IF wanted[j] = ANY (taken) THEN
                    outcome := 3;
                    found := wanted[j];
                    EXIT;
                END IF;
            END LOOP;
        END IF;
        befores[i] := heads[k];
        firsts[i] := 0;
        IF outcome = 0 THEN
            IF contested THEN
                taken := taken || wanted[key_from : own_until[i]];
            END IF;
            firsts[i] := h.position + 1;
            h.position := h.position + sizes[i];
            h.recorded_at := h.recorded_at + 1;
            heads[k] := heads[k] + sizes[i];
        END IF;
        outcomes[i] := outcome;
        versions[i] := heads[k];
        times[i] := h.recorded_at;
        taken_keys[i] := found;
        key_from := until[i] + 1;
    END LOOP;
    IF 0 = ANY (outcomes) THEN
        UPDATE head SET position = h.position, recorded_at = h.recorded_at;
        IF 0 = ANY (ids) THEN  -- a stream is born with its first event, and numbered by its birth
            last_id := coalesce((SELECT max(id) FROM streams), 0);
            FOR i IN 1 .. cardinality(stream_no) LOOP
                k := stream_no[i];
                IF outcomes[i] = 0 AND ids[k] = 0 THEN
                    last_id := last_id + 1;
                    ids[k] := last_id;
                    INSERT INTO streams (id, name, version) VALUES (last_id, names[k], 0);
                END IF;
            END LOOP;
        END IF;
        INSERT INTO events (position, stream_id, version, recorded_at, type, key, append_id, state)
        SELECT firsts[e.no] + e.place - 1, ids[stream_no[e.no]], befores[e.no] + e.place,
               times[e.no], e.type, e.key, append_ids[e.no], e.state
          FROM unnest(append_no, place, types, keys, states) AS e (no, place, type, key, state)
         WHERE firsts[e.no] > 0;
    END IF;
    answered_at := now_micros();
END $$;

-- Keep the newest snapshot of a stream that fits the log.
CREATE FUNCTION keep_snapshot_1(
    wanted_name text, wanted_version bigint, wanted_epoch bigint, wanted_shape bytea, wanted_state bytea
) RETURNS void LANGUAGE sql SET search_path FROM CURRENT AS $$
    INSERT INTO snapshots AS kept (stream_id, version, epoch, shape, state)
    SELECT id, wanted_version, wanted_epoch, wanted_shape, wanted_state FROM streams
     WHERE name = wanted_name AND wanted_version <= version
       AND wanted_epoch = (SELECT epoch FROM head)
        ON CONFLICT (stream_id) DO UPDATE SET version = excluded.version, epoch = excluded.epoch,
           shape = excluded.shape, state = excluded.state
     WHERE excluded.version >= kept.version OR excluded.epoch <> kept.epoch
        OR kept.version > (SELECT version FROM streams WHERE id = kept.stream_id)
$$;

-- A node says that it lives. Returns the store's time.
CREATE FUNCTION beat_1(
    held_clock bigint, beat_node text, beat_incarnation text, beat_release text,
    beat_started_at bigint, beat_status bytea
) RETURNS bigint LANGUAGE sql SET search_path FROM CURRENT AS $$
    INSERT INTO nodes (node, incarnation, release, started_at, beat_at, status)
    VALUES (beat_node, beat_incarnation, beat_release, beat_started_at,
            coalesce(held_clock, now_micros()), beat_status)
        ON CONFLICT (node) DO UPDATE SET incarnation = excluded.incarnation,
           release = excluded.release, started_at = excluded.started_at,
           beat_at = excluded.beat_at, status = excluded.status
    RETURNING beat_at
$$;

-- schema: The tables of one keyring. Nothing in them is readable without the key-encryption key.
CREATE SCHEMA IF NOT EXISTS /*schema*/;
CREATE TABLE /*schema*/.keyring (
    id       integer PRIMARY KEY CHECK (id = 1),
    version  integer NOT NULL,
    counted  bigint  NOT NULL,
    wiped    bigint  NOT NULL
);
INSERT INTO /*schema*/.keyring VALUES (1, 1, 0, 0);
CREATE TABLE /*schema*/.identities (
    handle_hmac  bytea PRIMARY KEY,
    pseudonym    text  NOT NULL,
    box          bytea NOT NULL
);
CREATE INDEX identities_pseudonym ON /*schema*/.identities (pseudonym);
CREATE TABLE /*schema*/.keys (
    owner       text    NOT NULL,
    generation  bigint  NOT NULL,
    wrapped     bytea   NOT NULL,
    created_at  bigint  NOT NULL,
    PRIMARY KEY (owner, generation)
);
CREATE TABLE /*schema*/.secrets (
    name     text  PRIMARY KEY,
    wrapped  bytea NOT NULL
);

-- grants: What the keyring's role may do; nobody else may even connect.
REVOKE ALL ON DATABASE /*database*/ FROM PUBLIC;
GRANT CONNECT ON DATABASE /*database*/ TO /*role*/;
REVOKE ALL ON SCHEMA /*schema*/ FROM PUBLIC;
GRANT USAGE ON SCHEMA /*schema*/ TO /*role*/;
REVOKE ALL ON ALL TABLES IN SCHEMA /*schema*/ FROM /*role*/;
GRANT SELECT, UPDATE (counted, wiped) ON /*schema*/.keyring TO /*role*/;
GRANT SELECT, INSERT, DELETE, UPDATE (pseudonym, box) ON /*schema*/.identities TO /*role*/;
GRANT SELECT, INSERT, DELETE ON /*schema*/.keys TO /*role*/;
GRANT SELECT, INSERT ON /*schema*/.secrets TO /*role*/;

-- grant_vacuum: From PostgreSQL 17 on, whoever does not own a table may be let clean it up.
GRANT MAINTAIN ON /*schema*/.keys, /*schema*/.identities TO /*role*/;

-- select_schema: The keyring's first table, NULL if there is none yet.
SELECT to_regclass(/*table*/)::text;

-- select_version: The version of the schema.
SELECT version FROM /*schema*/.keyring;

-- select_open_to_all: Whether anybody may connect to this database.
SELECT has_database_privilege('public', current_database(), 'CONNECT');

-- begin: Keep every other writer of this schema out, before the first read.
BEGIN ISOLATION LEVEL READ COMMITTED;
SELECT pg_advisory_xact_lock(hashtextextended('hilo keyring ' || /*name*/, 0));

-- commit: A time-out would end the wait for a replica, not the commit: only the client gives up.
SET LOCAL statement_timeout = 0;
COMMIT;

-- select_secrets: The keyring's own secrets, wrapped, and the check value among them.
SELECT name, wrapped FROM /*schema*/.secrets;

-- insert_secret: Once in the life of a keyring; never replaced.
INSERT INTO /*schema*/.secrets (name, wrapped) VALUES (%s, %s);

-- select_holds_people: Whether anybody is known, or any key exists.
SELECT EXISTS (SELECT FROM /*schema*/.identities) OR EXISTS (SELECT FROM /*schema*/.keys);

-- select_identity: Whom a handle leads to, and its box.
SELECT pseudonym, box FROM /*schema*/.identities WHERE handle_hmac = %s;

-- select_boxes: The handles of one person, as (hmac, box).
SELECT handle_hmac, box FROM /*schema*/.identities WHERE pseudonym = %s ORDER BY handle_hmac;

-- upsert_identity: A handle leads to a new person only if the one it led to was forgotten.
INSERT INTO /*schema*/.identities (handle_hmac, pseudonym, box) VALUES (%s, %s, %s)
    ON CONFLICT (handle_hmac) DO UPDATE SET pseudonym = excluded.pseudonym, box = excluded.box;

-- select_key: One wrapped key; empty if it has expired.
SELECT wrapped FROM /*schema*/.keys WHERE owner = %s AND generation = %s;

-- insert_key: A key is made once and never replaced, or what it sealed would be lost.
INSERT INTO /*schema*/.keys (owner, generation, wrapped, created_at) VALUES (%s, %s, %s, %s);

-- select_generations: The generations of which an owner still has a key.
SELECT generation FROM /*schema*/.keys
 WHERE owner = %s AND length(wrapped) > 0 ORDER BY generation;

-- delete_key: One generation of an owner's keys.
DELETE FROM /*schema*/.keys WHERE owner = %s AND generation = %s;

-- delete_keys: Every generation of an owner's keys.
DELETE FROM /*schema*/.keys WHERE owner = %s;

-- delete_identities: Every handle of a person.
DELETE FROM /*schema*/.identities WHERE pseudonym = %s;

-- count_destruction: Something was destroyed: whoever remembers it finds out by this number.
UPDATE /*schema*/.keyring SET counted = counted + 1 RETURNING counted;

-- select_destructions: How often something was destroyed, and how often of those it was wiped.
SELECT counted, wiped FROM /*schema*/.keyring;

-- vacuum: Write the tables anew, without what was deleted.
VACUUM (FULL, VERBOSE) /*schema*/.keys, /*schema*/.identities;

-- mark_wiped: What had been destroyed so far was wiped.
UPDATE /*schema*/.keyring SET wiped = greatest(wiped, %s);

-- dump_secrets: The whole table, in the order that SQLite has.
SELECT name, wrapped FROM /*schema*/.secrets ORDER BY name COLLATE "C";

-- dump_identities: The whole table.
SELECT handle_hmac, pseudonym, box FROM /*schema*/.identities ORDER BY handle_hmac;

-- dump_keys: The whole table, in the order that SQLite has.
SELECT owner, generation, wrapped, created_at FROM /*schema*/.keys
 ORDER BY owner COLLATE "C", generation;

-- load_secrets: Rows of another store.
COPY /*schema*/.secrets (name, wrapped) FROM STDIN;

-- load_identities: Rows of another store.
COPY /*schema*/.identities (handle_hmac, pseudonym, box) FROM STDIN;

-- load_keys: Rows of another store.
COPY /*schema*/.keys (owner, generation, wrapped, created_at) FROM STDIN;

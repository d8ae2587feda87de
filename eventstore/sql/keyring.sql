-- schema: The tables of one keyring. Nothing in them is readable without the key-encryption key.
CREATE TABLE IF NOT EXISTS identities (
    handle_hmac  BLOB PRIMARY KEY,
    pseudonym    TEXT NOT NULL,
    box          BLOB NOT NULL
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS identities_pseudonym ON identities (pseudonym);
CREATE TABLE IF NOT EXISTS keys (
    owner       TEXT    NOT NULL,
    generation  INTEGER NOT NULL,
    wrapped     BLOB    NOT NULL,
    created_at  INTEGER NOT NULL,
    PRIMARY KEY (owner, generation)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS secrets (
    name     TEXT PRIMARY KEY,
    wrapped  BLOB NOT NULL
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS destructions (
    id      INTEGER PRIMARY KEY CHECK (id = 1),
    counted INTEGER NOT NULL,
    wiped   INTEGER NOT NULL
);
INSERT INTO destructions SELECT 1, 0, 0 WHERE NOT EXISTS (SELECT 1 FROM destructions);
PRAGMA user_version = 2;

-- select_secrets: The keyring's own secrets, wrapped, and the check value among them.
SELECT name, wrapped FROM secrets;

-- insert_secret: Once in the life of a keyring; never replaced.
INSERT INTO secrets (name, wrapped) VALUES (?, ?);

-- select_holds_people: Whether anybody is known, or any key exists.
SELECT EXISTS (SELECT 1 FROM identities) OR EXISTS (SELECT 1 FROM keys);

-- select_pseudonym: Whom a handle leads to.
SELECT pseudonym FROM identities WHERE handle_hmac = ?;

-- select_boxes: The handles of one person, as (hmac, box).
SELECT handle_hmac, box FROM identities WHERE pseudonym = ? ORDER BY handle_hmac;

-- upsert_identity: A handle leads to a new person only if the one it led to was forgotten.
INSERT INTO identities (handle_hmac, pseudonym, box) VALUES (?, ?, ?)
    ON CONFLICT (handle_hmac) DO UPDATE SET pseudonym = excluded.pseudonym, box = excluded.box;

-- select_key: One wrapped key; empty if it has expired.
SELECT wrapped FROM keys WHERE owner = ? AND generation = ?;

-- insert_key: A key is made once and never replaced, or what it sealed would be lost.
INSERT INTO keys (owner, generation, wrapped, created_at) VALUES (?, ?, ?, ?);

-- select_generations: The generations of which an owner still has a key.
SELECT generation FROM keys WHERE owner = ? AND length(wrapped) > 0 ORDER BY generation;

-- delete_key: One generation of an owner's keys.
DELETE FROM keys WHERE owner = ? AND generation = ?;

-- delete_keys: Every generation of an owner's keys.
DELETE FROM keys WHERE owner = ?;

-- delete_identities: Every handle of a person.
DELETE FROM identities WHERE pseudonym = ?;

-- count_destruction: Something was destroyed: whoever remembers it finds out by this number.
UPDATE destructions SET counted = counted + 1;

-- select_destructions: How often something was destroyed, and how often of those it was wiped.
SELECT counted, wiped FROM destructions;

-- mark_wiped: What had been destroyed so far was wiped.
UPDATE destructions SET wiped = max(wiped, ?);

-- dump_secrets: The whole table.
SELECT name, wrapped FROM secrets ORDER BY name;

-- dump_identities: The whole table.
SELECT handle_hmac, pseudonym, box FROM identities ORDER BY handle_hmac;

-- dump_keys: The whole table.
SELECT owner, generation, wrapped, created_at FROM keys ORDER BY owner, generation;

-- load_secrets: A row of another store.
INSERT INTO secrets (name, wrapped) VALUES (?, ?);

-- load_identities: A row of another store.
INSERT INTO identities (handle_hmac, pseudonym, box) VALUES (?, ?, ?);

-- load_keys: A row of another store.
INSERT INTO keys (owner, generation, wrapped, created_at) VALUES (?, ?, ?, ?);

-- The tables of `SqliteStore` under their default names. `SqliteStoreBuilder::schema_sql` prints the same for other
-- names. Safe to run again.

CREATE TABLE IF NOT EXISTS "idem_records_meta" (
    id INTEGER PRIMARY KEY CHECK (id = 1),
    version INTEGER NOT NULL,
    fence INTEGER NOT NULL
) STRICT;

INSERT OR IGNORE INTO "idem_records_meta" (id, version, fence) VALUES (1, 1, 0);

CREATE TABLE IF NOT EXISTS "idem_records" (
    id BLOB NOT NULL UNIQUE,
    version INTEGER NOT NULL,
    fence INTEGER NOT NULL,
    attempt INTEGER NOT NULL,
    leased_until INTEGER NOT NULL,
    expires_at INTEGER NOT NULL,
    retention_us INTEGER NOT NULL,
    fingerprint BLOB NOT NULL,
    owner BLOB NOT NULL,
    instance INTEGER NOT NULL,
    created_at INTEGER NOT NULL,
    settled_at INTEGER,
    trace_id BLOB,
    endpoint TEXT NOT NULL,
    label TEXT,
    record BLOB
) STRICT;

CREATE INDEX IF NOT EXISTS "idem_records_expires_at" ON "idem_records" (expires_at);

CREATE INDEX IF NOT EXISTS "idem_records_claims" ON "idem_records" (id, instance) WHERE record IS NULL;

CREATE INDEX IF NOT EXISTS "idem_records_short" ON "idem_records" (substr(id, 17, 6));

-- Records a response inside the transaction of a handler. The insert fails unless the attempt holds its claim. The
-- number in the name changes when the trigger changes.
CREATE VIEW IF NOT EXISTS "idem_records_commit_v1" (id, owner, fence, record, settled_at, expires_at, is_alone, is_synced) AS
    SELECT NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL WHERE 0;

CREATE TRIGGER IF NOT EXISTS "idem_records_commit_v1_insert" INSTEAD OF INSERT ON "idem_records_commit_v1" BEGIN
    SELECT RAISE(ABORT, 'the connection has another file than the store, or has attached databases')
        WHERE NOT NEW.is_alone;
    SELECT RAISE(ABORT, 'the connection has a lower `synchronous` than the store; set it to FULL')
        WHERE NOT NEW.is_synced;
    SELECT RAISE(ABORT, 'the claim of this attempt is not in this database, or was forgotten')
        WHERE NOT EXISTS (SELECT 1 FROM "idem_records" WHERE id = NEW.id);
    SELECT RAISE(ABORT, 'another attempt has taken over')
        WHERE NOT EXISTS (SELECT 1 FROM "idem_records" WHERE id = NEW.id AND owner = NEW.owner
            AND fence = NEW.fence AND version = 1 AND record IS NULL);
    UPDATE "idem_records" SET record = NEW.record, settled_at = NEW.settled_at, expires_at = NEW.expires_at
        WHERE id = NEW.id;
END;

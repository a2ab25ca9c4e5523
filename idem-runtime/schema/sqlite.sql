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

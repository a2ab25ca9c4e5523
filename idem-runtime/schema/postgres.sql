-- The table of `PostgresStore` under its default name, in the schema `public`. `PostgresStoreBuilder::schema_sql` prints
-- the same for other names. Safe to run again.

CREATE TABLE IF NOT EXISTS "public"."idem_records" (
    id bytea PRIMARY KEY,
    fence bigint NOT NULL,
    leased_until timestamptz NOT NULL,
    expires_at timestamptz NOT NULL,
    created_at timestamptz NOT NULL,
    settled_at timestamptz,
    retention_ms bigint NOT NULL,
    attempt integer NOT NULL,
    version smallint NOT NULL,
    fingerprint bytea NOT NULL,
    owner bytea NOT NULL,
    trace_id bytea,
    endpoint text NOT NULL,
    label text,
    record bytea
);

CREATE INDEX IF NOT EXISTS "idem_records_expires_at" ON "public"."idem_records" (expires_at);

CREATE INDEX IF NOT EXISTS "idem_records_claims" ON "public"."idem_records" (id) WHERE record IS NULL;

CREATE INDEX IF NOT EXISTS "idem_records_short" ON "public"."idem_records" (substr(id, 17, 6));

CREATE OR REPLACE FUNCTION "public"."idem_records_claim_v5"(bytea, bytea, bytea, bigint, bigint, boolean, bigint, bytea, text, text, boolean) RETURNS bytea LANGUAGE plpgsql AS $$
        DECLARE
            now timestamptz := clock_timestamp();
            reply bytea;
            is_settled boolean;
            settled_fence bigint;
            last_fence bigint;
        BEGIN
            SELECT r.id <> $1, CASE
                WHEN r.expires_at <= now THEN NULL
                WHEN r.id <> $1 THEN CASE
    WHEN r.version <> 3 THEN int4send(5) || int2send(r.version)
    WHEN r.record IS NOT NULL THEN int4send(2) || interval_send(r.expires_at - now)
        || coalesce(r.trace_id, decode(repeat('00', 16), 'hex')) || r.record
    WHEN r.leased_until > now THEN int4send(3) || interval_send(r.leased_until - now)
        || int8send(r.fence) || int4send(r.attempt) || r.fingerprint
    ELSE int4send(4) || interval_send(r.expires_at - now)
        || int8send(r.fence) || int4send(r.attempt) || r.fingerprint
END
                WHEN r.record = 'settled'::bytea THEN NULL
                WHEN r.version = 3 AND r.record IS NULL AND (r.leased_until > now
                    AND r.owner = $3 OR r.leased_until <= now AND r.fingerprint = $2 AND $6) THEN NULL
                ELSE CASE
    WHEN r.version <> 3 THEN int4send(5) || int2send(r.version)
    WHEN r.record IS NOT NULL THEN int4send(2) || interval_send(r.expires_at - now)
        || coalesce(r.trace_id, decode(repeat('00', 16), 'hex')) || r.record
    WHEN r.leased_until > now THEN int4send(3) || interval_send(r.leased_until - now)
        || int8send(r.fence) || int4send(r.attempt) || r.fingerprint
    ELSE int4send(4) || interval_send(r.expires_at - now)
        || int8send(r.fence) || int4send(r.attempt) || r.fingerprint
END END
            INTO is_settled, reply
            FROM "public"."idem_records" r WHERE r.id IN ($1, ($1 || '\x01'::bytea)) ORDER BY r.id DESC LIMIT 1;
            IF reply IS NOT NULL THEN
                RETURN reply;
            END IF;
            PERFORM pg_advisory_xact_lock($7);
            IF is_settled THEN
                DELETE FROM "public"."idem_records" r WHERE r.id = ($1 || '\x01'::bytea) AND r.expires_at <= clock_timestamp()
                RETURNING r.fence INTO settled_fence;
                IF FOUND THEN
                    DELETE FROM "public"."idem_records" r WHERE r.id = $1 RETURNING r.fence INTO last_fence;
                    last_fence := greatest(settled_fence, last_fence);
                END IF;
            ELSIF NOT is_settled THEN -- There is a claim.
                DELETE FROM "public"."idem_records" r WHERE r.id = $1 AND r.expires_at <= clock_timestamp()
                RETURNING r.fence INTO last_fence;
                IF FOUND AND EXISTS (SELECT FROM "public"."idem_records" s WHERE s.id = ($1 || '\x01'::bytea)) THEN
                    RETURN NULL;
                END IF;
            END IF;
            INSERT INTO "public"."idem_records" AS r (id, version, fingerprint, owner, fence, attempt,
                leased_until, retention_ms, expires_at, created_at, trace_id, endpoint, label)
            VALUES ($1, 3, $2, $3, greatest(last_fence + 1, floor(extract(epoch FROM clock_timestamp()) * 1000000)::bigint), 1,
                clock_timestamp() + $4::bigint * interval '1 millisecond', $5, clock_timestamp() + $4::bigint * interval '1 millisecond' + $5::bigint * interval '1 millisecond',
                clock_timestamp(), $8, $9, $10)
            ON CONFLICT (id) DO NOTHING
            RETURNING int4send(1) || int8send(r.fence) || int4send(r.attempt) INTO reply;
            IF NOT FOUND THEN
                DELETE FROM "public"."idem_records" r WHERE r.id = $1 AND r.record = 'settled'::bytea
                    AND NOT EXISTS (SELECT FROM "public"."idem_records" s WHERE s.id = ($1 || '\x01'::bytea));
                IF FOUND THEN
                    RETURN NULL;
                END IF;
                UPDATE "public"."idem_records" AS r SET
                    owner = $3,
                    fence = r.fence + 1,
                    attempt = r.attempt + 1,
                    leased_until = clock_timestamp() + $4::bigint * interval '1 millisecond',
                    retention_ms = $5,
                    expires_at = clock_timestamp() + $4::bigint * interval '1 millisecond' + $5::bigint * interval '1 millisecond'
                WHERE r.id = $1 AND r.version = 3 AND r.record IS NULL
                    AND r.leased_until <= clock_timestamp() AND r.expires_at > clock_timestamp()
                    AND r.fingerprint = $2 AND $6
                RETURNING int4send(1) || int8send(r.fence) || int4send(r.attempt) INTO reply;
            END IF;
            IF NOT FOUND THEN
                UPDATE "public"."idem_records" AS r SET owner = $3
                WHERE r.id = $1 AND r.version = 3 AND r.record IS NULL AND r.owner = $3
                    AND r.leased_until > clock_timestamp()
                RETURNING int4send(1) || int8send(r.fence) || int4send(r.attempt) INTO reply;
            END IF;
            IF $11 THEN
                PERFORM set_config('synchronous_commit', 'off', true);
            ELSIF current_setting('synchronous_commit') = 'off' THEN
                PERFORM set_config('synchronous_commit', 'on', true);
            END IF;
            RETURN reply;
        END $$;

CREATE OR REPLACE FUNCTION "public"."idem_records_commit_v3"(bytea, bytea, bigint, bytea, bigint) RETURNS boolean LANGUAGE plpgsql
SET enable_seqscan = off AS $$
BEGIN
    INSERT INTO "public"."idem_records" (version, fingerprint, fence, attempt, leased_until, created_at, trace_id, endpoint, label, owner, id, retention_ms, expires_at, settled_at, record)
    SELECT version, fingerprint, fence, attempt, leased_until, created_at, trace_id, endpoint, label, owner, ($1 || '\x01'::bytea), $5, clock_timestamp() + $5::bigint * interval '1 millisecond', clock_timestamp(), $4
    FROM "public"."idem_records" c
    WHERE c.id = $1 AND c.owner = $2 AND c.fence = $3 AND c.version = 3
        AND c.record IS NULL
    FOR KEY SHARE OF c;
    IF NOT FOUND THEN
        IF EXISTS (SELECT FROM "public"."idem_records" o WHERE o.id IN ($1, ($1 || '\x01'::bytea))) THEN
            RAISE EXCEPTION 'another attempt has taken over' USING ERRCODE = 'IDM01';
        END IF;
        RAISE EXCEPTION 'the claim of this attempt is not in this database, or was forgotten'
            USING ERRCODE = 'IDM02';
    END IF;
    IF current_setting('synchronous_commit') = 'off' THEN
        PERFORM set_config('synchronous_commit', 'on', true);
    END IF;
    RETURN current_setting('synchronous_standby_names') <> '';
END $$;

CREATE OR REPLACE FUNCTION "public"."idem_records_complete_v1"(bytea, bytea, bigint, bytea, bigint) RETURNS boolean LANGUAGE plpgsql AS $$
BEGIN
    UPDATE "public"."idem_records" SET record = $4, settled_at = clock_timestamp(),
        expires_at = clock_timestamp() + $5::bigint * interval '1 millisecond'
    WHERE id = $1 AND owner = $2 AND fence = $3 AND version = 3
        AND record IS NULL AND expires_at > clock_timestamp()
        AND attempt = 1
        AND NOT EXISTS (SELECT FROM "public"."idem_records" s WHERE s.id = ($1 || '\x01'::bytea));
    RETURN FOUND;
END $$;

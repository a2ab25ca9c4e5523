//! The function that makes claims, as it is stored in the database.
//!
//! A function is faster than a single statement. PostgreSQL prepares a statement that may write for
//! writing before it reads anything. A function prepares its writes only when it reaches them, and
//! caches its plans.

use super::reply::{WON, seen};
use super::sql::{SETTLED, VERSION, micros_since_1970, millis, record_row};

/// The types of the function's arguments.
pub(super) const TAKES: &str =
    "(bytea, bytea, bytea, bigint, bigint, boolean, bigint, bytea, text, text, boolean)";

/// The arguments are `$1` id, `$2` fingerprint, `$3` owner, `$4` lease, `$5` retention, `$6`
/// whether to rerun, `$7` the id as a number, `$8` to `$10` the origin, and `$11` whether the claim need
/// not be durable. `name` and `table` must be quoted. Versions of the library share the function, so
/// another body needs another name: see `Table::claim_name`.
///
/// The record row that a handler's transaction wrote decides before the claim, and follows it in the order of the
/// primary key. So the function reads the last row of the id.
///
/// When a record or the claim of another owner exists, the function writes and locks nothing, so a
/// replay is a read. Otherwise the primary key decides which claim wins. The loser gets `NULL`, and
/// claims again.
///
/// Expired rows are deleted, and not updated. A transaction that has recorded a response under an expired claim holds
/// a lock on the claim. The deletion waits for the end of this transaction, and an older snapshot cannot record after the
/// deletion. When a record row has expired, the claim of the same id is settled too, and the function removes both.
///
/// A record row may appear after the function has looked for it. Then the function finds a settled claim, or
/// a record row next to the claim that it has deleted. It returns `NULL`, and finds the record row when it is called again.
/// When the record row has expired and was swept by then, the function removes the settled claim first.
///
/// When the holder of a claim repeats the claim, the function writes the row unchanged. The commit
/// of that write waits for the disk and for synchronous standbys. The first commit may not have
/// done so: when a server restarts while a commit waits for a standby, the row becomes visible
/// anyway.
///
/// The first fence is the time in microseconds since 1970, so that it is higher than every earlier
/// fence of the id, even when no row is left. To ensure this, a claim that may win locks the id
/// before it reads the clock. Otherwise another claim could win, finish and be forgotten between
/// that reading and the insert.
pub(super) fn definition(name: &str, table: &str) -> String {
    let (lease, retention, seen) = (millis("$4"), millis("$5"), seen());
    let fence = micros_since_1970("clock_timestamp()");
    let record_row = record_row("$1");
    format!(
        "CREATE OR REPLACE FUNCTION {name}{TAKES} RETURNS bytea LANGUAGE plpgsql AS $$
        DECLARE
            now timestamptz := clock_timestamp();
            reply bytea;
            is_settled boolean;
            settled_fence bigint;
            last_fence bigint;
        BEGIN
            SELECT r.id <> $1, CASE
                WHEN r.expires_at <= now THEN NULL
                WHEN r.id <> $1 THEN {seen}
                WHEN r.record = {SETTLED} THEN NULL
                WHEN r.version = {VERSION} AND r.record IS NULL AND (r.leased_until > now
                    AND r.owner = $3 OR r.leased_until <= now AND r.fingerprint = $2 AND $6) THEN NULL
                ELSE {seen} END
            INTO is_settled, reply
            FROM {table} r WHERE r.id IN ($1, {record_row}) ORDER BY r.id DESC LIMIT 1;
            IF reply IS NOT NULL THEN
                RETURN reply;
            END IF;
            PERFORM pg_advisory_xact_lock($7);
            IF is_settled THEN
                DELETE FROM {table} r WHERE r.id = {record_row} AND r.expires_at <= clock_timestamp()
                RETURNING r.fence INTO settled_fence;
                IF FOUND THEN
                    DELETE FROM {table} r WHERE r.id = $1 RETURNING r.fence INTO last_fence;
                    last_fence := greatest(settled_fence, last_fence);
                END IF;
            ELSIF NOT is_settled THEN -- There is a claim.
                DELETE FROM {table} r WHERE r.id = $1 AND r.expires_at <= clock_timestamp()
                RETURNING r.fence INTO last_fence;
                IF FOUND AND EXISTS (SELECT FROM {table} s WHERE s.id = {record_row}) THEN
                    RETURN NULL;
                END IF;
            END IF;
            INSERT INTO {table} AS r (id, version, fingerprint, owner, fence, attempt,
                leased_until, retention_ms, expires_at, created_at, trace_id, endpoint, label)
            VALUES ($1, {VERSION}, $2, $3, greatest(last_fence + 1, {fence}), 1,
                clock_timestamp() + {lease}, $5, clock_timestamp() + {lease} + {retention},
                clock_timestamp(), $8, $9, $10)
            ON CONFLICT (id) DO NOTHING
            RETURNING {WON} INTO reply;
            IF NOT FOUND THEN
                DELETE FROM {table} r WHERE r.id = $1 AND r.record = {SETTLED}
                    AND NOT EXISTS (SELECT FROM {table} s WHERE s.id = {record_row});
                IF FOUND THEN
                    RETURN NULL;
                END IF;
                UPDATE {table} AS r SET
                    owner = $3,
                    fence = r.fence + 1,
                    attempt = r.attempt + 1,
                    leased_until = clock_timestamp() + {lease},
                    retention_ms = $5,
                    expires_at = clock_timestamp() + {lease} + {retention}
                WHERE r.id = $1 AND r.version = {VERSION} AND r.record IS NULL
                    AND r.leased_until <= clock_timestamp() AND r.expires_at > clock_timestamp()
                    AND r.fingerprint = $2 AND $6
                RETURNING {WON} INTO reply;
            END IF;
            IF NOT FOUND THEN
                UPDATE {table} AS r SET owner = $3
                WHERE r.id = $1 AND r.version = {VERSION} AND r.record IS NULL AND r.owner = $3
                    AND r.leased_until > clock_timestamp()
                RETURNING {WON} INTO reply;
            END IF;
            IF $11 THEN
                PERFORM set_config('synchronous_commit', 'off', true);
            ELSIF current_setting('synchronous_commit') = 'off' THEN
                PERFORM set_config('synchronous_commit', 'on', true);
            END IF;
            RETURN reply;
        END $$"
    )
}

#[cfg(test)]
mod tests {
    use sha2::{Digest, Sha256};

    use super::*;
    use crate::request::record_id::RecordId;

    /// Versions of the library share a table, so another body needs another number in
    /// `Table::claim_name`.
    #[test]
    fn the_text_of_the_function_never_changes() {
        let words = definition(
            r#""public"."idem_records_claim_v5""#,
            r#""public"."idem_records""#,
        );
        let words: Vec<_> = words.split_whitespace().collect();
        let digest = Sha256::digest(words.join(" "));
        assert_eq!(
            RecordId::from_bytes(digest.into()).to_string(),
            "39eb8890ec17e4915433b17368489ce6dd302f56c11922e62eed2ff2814a9fce"
        );
    }
}

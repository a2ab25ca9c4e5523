//! The function that records a response inside a handler's transaction, as it is stored in the database.
//!
//! A function can raise an error. With a plain `INSERT … SELECT`, a transaction that no longer holds its
//! claim would insert nothing and could still be committed.

use super::sql::{VERSION, millis, record_row};

/// The types of the function's arguments.
pub(super) const TAKES: &str = "(bytea, bytea, bigint, bytea, bigint)";

/// The end of its name, behind the name of the table. Its number changes when the body of the function
/// changes.
pub(super) const NAME: &str = "_commit_v1";

/// The error of a transaction that does not see the claim of its attempt.
pub(super) const NOT_HELD: &str = "IDM01";

/// The arguments are `$1` id, `$2` owner, `$3` fence, `$4` record, and `$5` ttl. `name` and `table` must be
/// quoted. Versions of the library share the function, so another body needs another name: see
/// `Table::commit_name`.
///
/// The function inserts a row and updates none. Under REPEATABLE READ and SERIALIZABLE, an update of the claim
/// would fail whenever the lease was renewed after the transaction's snapshot. The primary key decides
/// between an attempt and the attempt that has overtaken it: of the two, one commits.
///
/// The claim must be in the same database as the transaction. This also shows that the database is that of
/// the store.
pub(super) fn definition(name: &str, table: &str) -> String {
    let (record_row, ttl) = (record_row("$1"), millis("$5"));
    format!(
        "CREATE OR REPLACE FUNCTION {name}{TAKES} RETURNS void LANGUAGE plpgsql AS $$
        BEGIN
            INSERT INTO {table} (id, version, fingerprint, owner, fence, attempt, leased_until,
                retention_ms, expires_at, created_at, settled_at, trace_id, endpoint, label, record)
            SELECT {record_row}, c.version, c.fingerprint, c.owner, c.fence, c.attempt, c.leased_until,
                $5, clock_timestamp() + {ttl}, c.created_at, clock_timestamp(), c.trace_id, c.endpoint,
                c.label, $4
            FROM {table} c
            WHERE c.id = $1 AND c.owner = $2 AND c.fence = $3 AND c.version = {VERSION}
                AND c.record IS NULL;
            IF NOT FOUND THEN
                RAISE EXCEPTION 'the claim of this attempt is not in this database, or was taken over'
                    USING ERRCODE = '{NOT_HELD}';
            END IF;
            IF current_setting('synchronous_commit') = 'off' THEN
                PERFORM set_config('synchronous_commit', 'on', true);
            END IF;
        END $$"
    )
}

#[cfg(test)]
mod tests {
    use sha2::{Digest, Sha256};

    use super::*;
    use crate::request::record_id::RecordId;

    /// Versions of the library share a table, so another body needs another number in `NAME`.
    #[test]
    fn golden() {
        let words = definition(
            r#""public"."idem_records_commit_v1""#,
            r#""public"."idem_records""#,
        );
        let words: Vec<_> = words.split_whitespace().collect();
        let digest = Sha256::digest(words.join(" "));
        assert_eq!(
            RecordId::from_bytes(digest.into()).to_string(),
            "11bbb2d402d41490d1aa082ab1fed35f6c0ccf5d56479d2d7ac9e71d904642e2"
        );
    }
}

//! The function that records a response inside a handler's transaction, as it is stored in the database.
//!
//! A function can raise an error. With a plain `INSERT … SELECT`, a transaction that no longer holds its
//! claim would insert nothing and could still be committed.

use super::sql::{COPIED, VERSION, millis, record_row};

/// The types of the function's arguments.
pub(super) const TAKES: &str = "(bytea, bytea, bigint, bytea, bigint)";

/// The end of its name, behind the name of the table. Its number changes when the body of the function
/// changes.
pub(super) const NAME: &str = "_commit_v3";

/// The error of a transaction that sees the claim or the record of another attempt.
pub(super) const NOT_HELD: &str = "IDM01";

/// The error of a transaction that sees no claim and no record of the key.
pub(super) const NOT_SEEN: &str = "IDM02";

/// The arguments are `$1` id, `$2` owner, `$3` fence, `$4` record, and `$5` ttl. `name` and `table` must be
/// quoted. Versions of the library share the function, so another body needs another name: see
/// `Table::commit_name`.
///
/// The function inserts a row and updates none. Under REPEATABLE READ and SERIALIZABLE, an update of the claim
/// would fail whenever the lease was renewed after the transaction's snapshot. The primary key decides
/// between an attempt and the attempt that has overtaken it: of the two, one commits.
///
/// The lock on the claim makes its removal wait for the end of the transaction, and an older snapshot fails when the
/// claim was removed: no unique key is left then that could decide. The lock does not conflict with a renewal or a
/// takeover, because neither changes the key.
///
/// The claim must be in the same database as the transaction. This also shows that the database is that of
/// the store.
///
/// A session keeps the plans of the function. Without `enable_seqscan = off`, plans that were made while the table was small
/// would read the whole table until its next `ANALYZE`. The sessions of the store have this setting; the function is
/// called in a session of the service.
///
/// Returns whether the commit will wait for standbys.
pub(super) fn definition(name: &str, table: &str) -> String {
    let (record_row, ttl) = (record_row("$1"), millis("$5"));
    format!(
        "CREATE OR REPLACE FUNCTION {name}{TAKES} RETURNS boolean LANGUAGE plpgsql
        SET enable_seqscan = off AS $$
        BEGIN
            INSERT INTO {table} ({COPIED}, owner, id, retention_ms, expires_at, settled_at, record)
            SELECT {COPIED}, owner, {record_row}, $5, clock_timestamp() + {ttl}, clock_timestamp(), $4
            FROM {table} c
            WHERE c.id = $1 AND c.owner = $2 AND c.fence = $3 AND c.version = {VERSION}
                AND c.record IS NULL
            FOR KEY SHARE OF c;
            IF NOT FOUND THEN
                IF EXISTS (SELECT FROM {table} o WHERE o.id IN ($1, {record_row})) THEN
                    RAISE EXCEPTION 'another attempt has taken over' USING ERRCODE = '{NOT_HELD}';
                END IF;
                RAISE EXCEPTION 'the claim of this attempt is not in this database, or was forgotten'
                    USING ERRCODE = '{NOT_SEEN}';
            END IF;
            IF current_setting('synchronous_commit') = 'off' THEN
                PERFORM set_config('synchronous_commit', 'on', true);
            END IF;
            RETURN current_setting('synchronous_standby_names') <> '';
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
    fn the_text_of_the_function_never_changes() {
        let words = definition(
            r#""public"."idem_records_commit_v3""#,
            r#""public"."idem_records""#,
        );
        let words: Vec<_> = words.split_whitespace().collect();
        let digest = Sha256::digest(words.join(" "));
        assert_eq!(
            RecordId::from_bytes(digest.into()).to_string(),
            "edc9f80c4dd072ce51d659fdc59ee7d0e46d55430a80584f2297a35778b9cb26"
        );
    }
}

//! The function that records the response of a first attempt, as it is stored in the database.
//!
//! A batch calls it once for each claim. In one `UPDATE` for all claims, PostgreSQL would choose how to join them with
//! the table, and could choose to read the whole index.

use super::sql::{held_claim, millis, record_row};

/// The types of the function's arguments.
pub(super) const TAKES: &str = "(bytea, bytea, bigint, bytea, bigint)";

/// The end of its name, behind the name of the table. Its number changes when the body of the function
/// changes.
pub(super) const NAME: &str = "_complete_v1";

/// The arguments are `$1` id, `$2` owner, `$3` fence, `$4` record, and `$5` ttl. `name` and `table` must be
/// quoted. Versions of the library share the function, so another body needs another name: see
/// `Table::complete_name`.
///
/// Returns whether the record was stored. Otherwise `Statements::complete` and the statements after it decide
/// why.
pub(super) fn definition(name: &str, table: &str) -> String {
    format!(
        "CREATE OR REPLACE FUNCTION {name}{TAKES} RETURNS boolean LANGUAGE plpgsql AS $$
        BEGIN
            {};
            RETURN FOUND;
        END $$",
        complete(table)
    )
}

/// Stores the record of a first attempt that holds its claim. The record of a later attempt needs a record row:
/// see `settle_by_record_row` in `statements.rs`.
pub(super) fn complete(table: &str) -> String {
    format!(
        "UPDATE {table} SET record = $4, settled_at = clock_timestamp(),
                expires_at = clock_timestamp() + {ttl}
            WHERE {held}
                AND attempt = 1
                AND NOT EXISTS (SELECT FROM {table} s WHERE s.id = {record_row})",
        ttl = millis("$5"),
        held = held_claim(),
        record_row = record_row("$1"),
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
            r#""public"."idem_records_complete_v1""#,
            r#""public"."idem_records""#,
        );
        let words: Vec<_> = words.split_whitespace().collect();
        let digest = Sha256::digest(words.join(" "));
        assert_eq!(
            RecordId::from_bytes(digest.into()).to_string(),
            "10f75c180e017ca9aef5fa03762ed4477f17765a78f38b748390d76a73f3fe76"
        );
    }
}

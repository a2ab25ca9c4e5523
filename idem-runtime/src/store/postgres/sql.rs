//! Parts that the statements and the claim function share.

use sqlx::Postgres;
use sqlx::postgres::PgArguments;

use crate::request::record_id::RecordId;

pub(super) type Query = sqlx::query::Query<'static, Postgres, PgArguments>;

/// The version of a row. Rows with another version are left unchanged.
pub(super) const VERSION: i16 = 3;

/// A time in whole microseconds since 1970.
pub(super) fn micros_since_1970(time: &str) -> String {
    format!("floor(extract(epoch FROM {time}) * 1000000)::bigint")
}

/// A parameter in milliseconds, as an interval.
pub(super) fn millis(parameter: &str) -> String {
    format!("{parameter}::bigint * interval '1 millisecond'")
}

/// Selects the claim that the holder owns. The parameters `$1` to `$3` are those of a holder.
pub(super) fn held_claim() -> String {
    format!(
        "id = $1 AND owner = $2 AND fence = $3 AND version = {VERSION}
                AND record IS NULL AND expires_at > clock_timestamp()"
    )
}

/// Makes a statement write to the log. The commit of a write waits for the disk and for synchronous
/// standbys. The commit of a read does not.
pub(super) const WRITES: &str = "pg_logical_emit_message(true, 'axum-idem', '') IS NOT NULL";

/// Makes the commit of this statement wait for the disk in a session that would not wait.
pub(super) const DURABLY: &str = "CASE current_setting('synchronous_commit')
    WHEN 'off' THEN set_config('synchronous_commit', 'on', true) END";

/// The time of a read, as the clause `clock` of `WITH`. The transaction begins before the server takes the snapshot of
/// the rows. A later time would show a state that never was: a claim that was renewed in between would look lapsed.
pub(super) const NOW: &str = "clock AS MATERIALIZED (SELECT transaction_timestamp() AS now)";

/// The key of the record row under a record id. The transaction of a handler writes this row.
///
/// The key is one byte longer than the key of the claim. So a statement for the claim of a holder can never
/// change a record row, and the record row follows its claim in the order of the primary key.
pub(super) fn record_row(id: &str) -> String {
    format!("({id} || '\\x01'::bytea)")
}

/// The columns that a record row has from its claim.
pub(super) const COPIED: &str =
    "version, fingerprint, fence, attempt, leased_until, created_at, trace_id, endpoint, label";

/// The record of a claim that a record row has settled. The record of a response begins with its version.
///
/// Such a claim stays until its record row is gone. If it was removed earlier, a claim that has looked for the
/// record row too early would find the key free. Without its record row, it counts as nothing.
pub(super) const SETTLED: &str = "'settled'::bytea";

/// Whether the row `row` is not a claim that a record row has settled. A record row settles a claim even
/// when it has expired, until the next claim removes both. `record` is the record, or how it begins.
///
/// With `OFFSET 0`, the server searches the primary key for each row. Otherwise a plan that was made while the table was
/// small would read the whole primary key.
pub(super) fn is_shown(table: &str, row: &str, record: &str) -> String {
    format!(
        "(octet_length({row}.id) > 32
            OR {row}.{record} IS DISTINCT FROM {SETTLED} AND NOT EXISTS (SELECT FROM {table} s WHERE s.id = {key} OFFSET 0))",
        key = record_row(&format!("{row}.id"))
    )
}

/// The number of the lock of an id. It is in the second half of the id, because the first half is the same for a
/// whole scope.
pub(super) fn number(id: RecordId) -> i64 {
    let (_, number) = id.as_bytes().split_last_chunk().expect("32 bytes");
    i64::from_be_bytes(*number)
}

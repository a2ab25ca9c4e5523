//! Parts that the statements and the claim function share.

use sqlx::Postgres;
use sqlx::postgres::PgArguments;

pub(super) type Query = sqlx::query::Query<'static, Postgres, PgArguments>;

/// The version of a row. Rows with another version are left unchanged.
pub(super) const VERSION: i16 = 2;

/// A time in whole microseconds since 1970.
pub(super) fn micros_since_1970(time: &str) -> String {
    format!("floor(extract(epoch FROM {time}) * 1000000)::bigint")
}

/// A parameter in milliseconds, as an interval.
pub(super) fn millis(parameter: &str) -> String {
    format!("{parameter}::bigint * interval '1 millisecond'")
}

/// The key of the record row under a record id. The transaction of a handler writes this row.
///
/// The key is one byte longer than the key of the claim. So a statement for the claim of a holder can never
/// change a record row, and the record row follows its claim in the order of the primary key.
pub(super) fn record_row(id: &str) -> String {
    format!("({id} || '\\x01'::bytea)")
}

/// Whether the row `row` is not a claim that a record row has settled. A record row settles a claim even
/// when it has expired, until the next claim removes both.
pub(super) fn is_shown(table: &str, row: &str) -> String {
    format!(
        "(octet_length({row}.id) > 32 OR NOT EXISTS (SELECT FROM {table} s WHERE s.id = {key}))",
        key = record_row(&format!("{row}.id"))
    )
}

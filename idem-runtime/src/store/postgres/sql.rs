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

/// Makes a statement write to the log. The commit of a write waits for the disk and for synchronous
/// standbys. The commit of a read does not.
pub(super) const WRITES: &str = "pg_logical_emit_message(true, 'axum-idem', '') IS NOT NULL";

/// The time of a read, as the clause `clock` of `WITH`. The transaction begins before the server takes the snapshot of
/// the rows. A later time would show a state that never was: a claim that was renewed in between would look lapsed.
pub(super) const NOW: &str = "clock AS MATERIALIZED (SELECT transaction_timestamp() AS now)";

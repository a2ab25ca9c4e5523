//! What the statements and the function that claims share.

use sqlx::Postgres;
use sqlx::postgres::PgArguments;

pub(super) type Query = sqlx::query::Query<'static, Postgres, PgArguments>;

/// The version of a row. Another version's is left alone.
pub(super) const VERSION: i16 = 1;

/// A time in whole microseconds since 1970.
pub(super) fn micros_since_1970(time: &str) -> String {
    format!("floor(extract(epoch FROM {time}) * 1000000)::bigint")
}

/// A parameter in milliseconds, as an interval.
pub(super) fn millis(parameter: &str) -> String {
    format!("{parameter}::bigint * interval '1 millisecond'")
}

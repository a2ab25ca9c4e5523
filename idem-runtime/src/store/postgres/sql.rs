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

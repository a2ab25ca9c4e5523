//! The statements of the transitions. What claims stands in `claiming.rs`.

use std::sync::Arc;

use super::answer::seen;
use super::table::Table;

/// The version of a row. Another version's is left alone.
pub(super) const VERSION: i16 = 1;

/// Every statement on one table.
///
/// Time is `clock_timestamp()`: `now()` stands still inside a transaction.
#[derive(Debug)]
pub(super) struct Statements {
    pub(super) claim: Arc<str>,
    pub(super) renew: Arc<str>,
    pub(super) complete: Arc<str>,
    pub(super) is_complete: Arc<str>,
    pub(super) release: Arc<str>,
    pub(super) abandon: Arc<str>,
    pub(super) look_up: Arc<str>,
    pub(super) forget: Arc<str>,
    pub(super) resolve: Arc<str>,
    pub(super) sweep: Arc<str>,
}

/// Commits what follows to disk, where the session would not. Read by `COMMIT`, and over with it.
const DURABLY: &str = "CASE current_setting('synchronous_commit')
    WHEN 'off' THEN set_config('synchronous_commit', 'on', true) END";

/// The claim that a holder holds.
const HELD: &str = "id = $1 AND owner = $2 AND fence = $3 AND version = 1
    AND record IS NULL AND expires_at > clock_timestamp()";

impl Statements {
    pub(super) fn new(table: &Table) -> Self {
        let claim = table.claim();
        let table = table.quoted();
        Self {
            claim: format!("SELECT {claim}($1, $2, $3, $4, $5, $6, $7)").into(),
            renew: format!(
                "WITH done AS (
                    UPDATE {table} SET
                        leased_until = clock_timestamp() + {lease},
                        expires_at = clock_timestamp() + {lease} + {retention}
                    WHERE {HELD} RETURNING 1
                )
                SELECT EXISTS (SELECT FROM done) AS done",
                lease = millis("$4"),
                retention = millis("retention_ms"),
            )
            .into(),
            complete: format!(
                "UPDATE {table} SET record = $4, expires_at = clock_timestamp() + {ttl}
                WHERE {HELD} RETURNING {DURABLY}",
                ttl = millis("$5"),
            )
            .into(),
            is_complete: format!(
                "SELECT EXISTS (
                    SELECT FROM {table}
                    WHERE id = $1 AND owner = $2 AND fence = $3 AND record = $4
                        AND expires_at > clock_timestamp()
                ) AS done"
            )
            .into(),
            release: format!(
                "WITH done AS (DELETE FROM {table} WHERE {HELD} RETURNING 1)
                SELECT EXISTS (SELECT FROM done) AS done"
            )
            .into(),
            // A claim that has read the clock before must not find a lapsed lease prolonged.
            abandon: format!(
                "WITH done AS (
                    UPDATE {table} SET
                        leased_until = least(leased_until, clock_timestamp()),
                        expires_at = clock_timestamp() + {retention}
                    WHERE {HELD} RETURNING 1
                )
                SELECT EXISTS (SELECT FROM done) AS done",
                retention = millis("retention_ms"),
            )
            .into(),
            look_up: format!(
                "WITH clock AS MATERIALIZED (SELECT clock_timestamp() AS now)
                SELECT {seen} FROM {table} r, clock
                WHERE r.id = $1 AND r.expires_at > now",
                seen = seen(),
            )
            .into(),
            forget: format!(
                "WITH done AS (
                    DELETE FROM {table} WHERE id = $1
                    RETURNING expires_at > clock_timestamp() AS was_there
                )
                SELECT EXISTS (SELECT FROM done WHERE was_there) AS done, {DURABLY}"
            )
            .into(),
            resolve: format!(
                "WITH done AS (
                    UPDATE {table} SET record = $3, expires_at = clock_timestamp() + {ttl}
                    WHERE id = $1 AND fence = $2 AND version = 1 AND record IS NULL
                        AND leased_until <= clock_timestamp()
                        AND expires_at > clock_timestamp()
                    RETURNING 1
                )
                SELECT EXISTS (SELECT FROM done) AS done, {DURABLY}",
                ttl = millis("$4"),
            )
            .into(),
            // The inner SELECT reads the clock once, so that the index serves.
            sweep: format!(
                "DELETE FROM {table} WHERE id = ANY (ARRAY(
                    SELECT id FROM {table}
                    WHERE expires_at <= (SELECT clock_timestamp())
                    ORDER BY expires_at LIMIT $1 FOR UPDATE SKIP LOCKED
                )) AND expires_at <= clock_timestamp()"
            )
            .into(),
        }
    }
}

pub(super) fn micros_since_1970(time: &str) -> String {
    format!("floor(extract(epoch FROM {time}) * 1000000)::bigint")
}

pub(super) fn millis(parameter: &str) -> String {
    format!("{parameter}::bigint * interval '1 millisecond'")
}

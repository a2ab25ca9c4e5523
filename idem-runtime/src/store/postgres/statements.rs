//! The transitions, each one statement.

use std::sync::Arc;

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
        let table = table.quoted();
        Self {
            claim: claim(&table).into(),
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
            complete: complete(&table).into(),
            release: format!(
                "WITH done AS (DELETE FROM {table} WHERE {HELD} RETURNING 1)
                SELECT EXISTS (SELECT FROM done) AS done"
            )
            .into(),
            abandon: format!(
                "WITH done AS (
                    UPDATE {table} SET
                        leased_until = clock_timestamp(),
                        expires_at = clock_timestamp() + {retention}
                    WHERE {HELD} RETURNING 1
                )
                SELECT EXISTS (SELECT FROM done) AS done",
                retention = millis("retention_ms"),
            )
            .into(),
            look_up: format!(
                "WITH clock AS MATERIALIZED (SELECT clock_timestamp() AS now)
                SELECT {SEEN} FROM {table} r, clock
                WHERE r.id = $1 AND r.expires_at > clock.now"
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

/// What stands there, as `row.rs` reads it.
const SEEN: &str = "
    CASE
        WHEN r.version <> 1 THEN 'unreadable'
        WHEN r.record IS NOT NULL THEN 'recorded'
        WHEN r.leased_until > clock.now THEN 'in flight'
        ELSE 'unknown'
    END AS state,
    r.version, r.fingerprint, r.owner, r.fence, r.attempt, r.record,
    floor(extract(epoch FROM r.leased_until - clock.now) * 1000)::bigint AS lease_left,
    floor(extract(epoch FROM r.expires_at - clock.now) * 1000)::bigint AS expires_in";

/// `$1` id, `$2` fingerprint, `$3` owner, `$4` lease, `$5` retention, `$6` whether to rerun, `$7` the
/// id as a number.
///
/// `seen` is what the statement's snapshot shows; where that is in the way, nothing is written and
/// nothing is locked, so that a replay is a read. Otherwise the primary key decides the race: who
/// loses it finds nothing won and asks again.
///
/// The first fence is the time in microseconds since 1970, above every fence of an earlier life of
/// the id, of which nothing may be left. For that, who may win takes the advisory lock of the id
/// before he reads the time: between that and his insert, another could have won and be forgotten.
fn claim(table: &str) -> String {
    let (lease, retention) = (millis("$4"), millis("$5"));
    format!(
        "WITH clock AS MATERIALIZED (SELECT clock_timestamp() AS now),
        seen AS MATERIALIZED (
            SELECT {SEEN},
                r.version = {VERSION} AND r.record IS NULL AND r.leased_until <= clock.now
                    AND r.fingerprint = $2 AND $6 AS may_take_over
            FROM {table} r, clock
            WHERE r.id = $1 AND r.expires_at > clock.now
        ),
        alone AS MATERIALIZED (
            SELECT pg_advisory_xact_lock($7)
            WHERE NOT EXISTS (SELECT FROM seen WHERE NOT may_take_over)
        ),
        won AS (
            INSERT INTO {table} AS r (id, version, fingerprint, owner, fence, attempt,
                leased_until, retention_ms, expires_at, record)
            SELECT $1, {VERSION}, $2, $3, floor(extract(epoch FROM now) * 1000000)::bigint, 1,
                now + {lease}, $5::bigint, now + {lease} + {retention}, NULL
            FROM (SELECT clock_timestamp() AS now FROM alone) clock
            ON CONFLICT (id) DO UPDATE SET
                version = excluded.version,
                fingerprint = excluded.fingerprint,
                owner = excluded.owner,
                fence = CASE WHEN r.expires_at <= clock_timestamp()
                    THEN greatest(r.fence + 1, excluded.fence) ELSE r.fence + 1 END,
                attempt = CASE WHEN r.expires_at <= clock_timestamp()
                    THEN 1 ELSE r.attempt + 1 END,
                leased_until = clock_timestamp() + {lease},
                retention_ms = excluded.retention_ms,
                expires_at = clock_timestamp() + {lease} + {retention},
                record = NULL
            WHERE r.expires_at <= clock_timestamp()
                OR r.version = {VERSION} AND r.record IS NULL
                    AND r.leased_until <= clock_timestamp()
                    AND r.fingerprint = excluded.fingerprint AND $6
            RETURNING r.fence, r.attempt
        )
        SELECT won.fence AS won_fence, won.attempt AS won_attempt, seen.*, {DURABLY}
        FROM clock LEFT JOIN won ON true LEFT JOIN seen ON true"
    )
}

/// `$1` id, `$2` owner, `$3` fence, `$4` record, `$5` ttl.
///
/// The same record again is what a holder sends whose first answer got lost: it stands, and its time
/// runs on.
fn complete(table: &str) -> String {
    format!(
        "WITH done AS (
            UPDATE {table} SET record = $4, expires_at = clock_timestamp() + {ttl}
            WHERE {HELD} RETURNING 1
        )
        SELECT EXISTS (SELECT FROM done) OR EXISTS (
            SELECT FROM {table}
            WHERE id = $1 AND owner = $2 AND fence = $3 AND record = $4
                AND expires_at > clock_timestamp()
        ) AS done, {DURABLY}",
        ttl = millis("$5"),
    )
}

fn millis(parameter: &str) -> String {
    format!("{parameter}::bigint * interval '1 millisecond'")
}

//! The statements that run the transitions of several callers in one transaction. `together.rs` sends them.

use std::sync::Arc;

use super::reply::{RECORDED, WON};
use super::sql::{self, DURABLY, NOW, Query, SETTLED, VERSION, micros_since_1970};
use super::table::Table;
use crate::request::record_id::RecordId;
use crate::settings::policy::OnUnknown;
use crate::store::millis::millis;
use crate::store::{Claim, Holder, Record};

/// Fails a batch that waits for a lock. Otherwise one locked row would delay everyone in the batch, and two batches
/// could wait for each other.
const LIMITS: &str = "limits AS MATERIALIZED (SELECT set_config('lock_timeout', '50ms', true))";

/// Each returns one row for each transition: its result, and its place in the batch from 1 on.
///
/// Each array is in a subquery. Otherwise the server would see its length, prefer a plan of its own for each short batch,
/// and make that plan again each time. That took three times as many instructions as the plan itself.
#[derive(Debug)]
pub(super) struct Batches {
    pub(super) replays: Arc<str>,
    pub(super) claims: Arc<str>,
    pub(super) completions: Arc<str>,
}

/// The record of an attempt, and the time that it is kept.
#[derive(Clone, Debug)]
pub(super) struct Completion {
    pub(super) holder: Holder,
    pub(super) fence: i64,
    pub(super) record: Record,
    pub(super) ttl: i64,
}

impl Batches {
    pub(super) fn new(table: &Table) -> Self {
        let complete = table.complete();
        let claims = claims(&table.claim(), &table.quoted());
        let table = table.quoted();
        // A subquery for each id, and not a join, so that each id is found by the index.
        let recorded = |id: &str| {
            format!(
                "(SELECT {RECORDED} FROM {table} r WHERE r.id = {id} AND r.expires_at > now
                    AND r.version = {VERSION} AND r.record <> {SETTLED})"
            )
        };
        Self {
            replays: format!(
                "WITH {NOW} SELECT coalesce({}, {}), place
                FROM clock, unnest((SELECT $1::bytea[])) WITH ORDINALITY AS u (id, place)",
                recorded(&sql::record_row("u.id")),
                recorded("u.id"),
            )
            .into(),
            claims,
            completions: format!(
                "WITH {LIMITS}
                SELECT {complete}(id, owner, fence, record, ttl), place, {DURABLY}
                FROM limits, unnest((SELECT $1::bytea[]), (SELECT $2::bytea[]), (SELECT $3::bigint[]),
                    (SELECT $4::bytea[]), (SELECT $5::bigint[]))
                    WITH ORDINALITY AS u (id, owner, fence, record, ttl, place)"
            )
            .into(),
        }
    }
}

/// Claims free keys with one `INSERT`, which takes less than half of the instructions of one call of the function for
/// each key. The function makes the other claims.
///
/// As in the function, a claim of a free key locks the id before it reads the clock, and the primary key decides which
/// claim wins. Of equal keys in one batch, one is inserted, and the function sees its row.
fn claims(claim: &str, table: &str) -> Arc<str> {
    let (lease, retention) = (sql::millis("lease"), sql::millis("retention"));
    let fence = micros_since_1970("clock_timestamp()");
    let record_row = sql::record_row("c.id");
    format!(
        "WITH {LIMITS},
        claims AS MATERIALIZED (
            SELECT u.* FROM limits, unnest((SELECT $1::bytea[]), (SELECT $2::bytea[]), (SELECT $3::bytea[]),
                (SELECT $4::bigint[]), (SELECT $5::bigint[]), (SELECT $6::boolean[]), (SELECT $7::bigint[]),
                (SELECT $8::bytea[]), (SELECT $9::text[]), (SELECT $10::text[]))
                WITH ORDINALITY AS u (id, fingerprint, owner, lease, retention, rerun, number, trace_id,
                    endpoint, label, place)
        ),
        free AS MATERIALIZED (
            SELECT c.*, pg_advisory_xact_lock(number) FROM claims c
            WHERE (SELECT true FROM {table} r WHERE r.id >= c.id AND r.id <= {record_row}
                ORDER BY r.id LIMIT 1) IS NULL
        ),
        won AS (
            INSERT INTO {table} AS r (id, version, fingerprint, owner, fence, attempt, leased_until,
                retention_ms, expires_at, created_at, trace_id, endpoint, label)
            SELECT id, {VERSION}, fingerprint, owner, {fence}, 1, clock_timestamp() + {lease}, retention,
                clock_timestamp() + {lease} + {retention}, clock_timestamp(), trace_id, endpoint, label
            FROM free ON CONFLICT (id) DO NOTHING
            RETURNING r.id, r.owner, {WON} AS reply
        )
        SELECT coalesce(won.reply, {claim}(c.id, fingerprint, c.owner, lease, retention, rerun, number,
                trace_id, endpoint, label, $11)), place,
            CASE WHEN $11 THEN set_config('synchronous_commit', 'off', true) ELSE {DURABLY} END
        FROM claims c LEFT JOIN won ON won.id = c.id AND won.owner = c.owner"
    )
    .into()
}

/// Binds `$1` of the replays.
pub(super) fn replaying(query: Query, ids: &[RecordId]) -> Query {
    query.bind(column(ids, |id| *id.as_bytes()))
}

/// Binds `$1` to `$11` of the claims. The commit waits for the disk unless all claims need not be durable.
pub(super) fn claiming(query: Query, claims: &[Claim], table: &Table) -> Query {
    query
        .bind(column(claims, |it| *it.id.as_bytes()))
        .bind(column(claims, |it| *it.fingerprint.as_bytes()))
        .bind(column(claims, |it| *it.owner.as_bytes()))
        .bind(column(claims, |it| millis(it.lease)))
        .bind(column(claims, |it| millis(it.retention)))
        .bind(column(claims, |it| it.on_unknown == OnUnknown::Rerun))
        .bind(column(claims, |it| sql::number(it.id)))
        .bind(column(claims, |it| {
            it.origin.trace_id().map(|id| *id.as_bytes())
        }))
        .bind(column(claims, |it| table.text(it.origin.endpoint())))
        .bind(column(claims, |it| {
            it.origin.label().map(|label| table.text(label))
        }))
        .bind(claims.iter().all(|it| it.is_transactional))
}

/// Binds `$1` to `$5` of the completions.
pub(super) fn completing(query: Query, completions: &[Completion]) -> Query {
    query
        .bind(column(completions, |it| *it.holder.id.as_bytes()))
        .bind(column(completions, |it| *it.holder.owner.as_bytes()))
        .bind(column(completions, |it| it.fence))
        .bind(column(completions, |it| it.record.as_bytes().to_vec()))
        .bind(column(completions, |it| it.ttl))
}

/// The values of one array of a batch.
fn column<J, T>(jobs: &[J], value: impl Fn(&J) -> T) -> Vec<T> {
    jobs.iter().map(value).collect()
}

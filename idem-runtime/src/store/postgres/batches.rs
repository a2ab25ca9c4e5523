//! The statements that run the transitions of several callers in one transaction. `together.rs` sends them.

use std::sync::Arc;

use super::reply::RECORDED;
use super::sql::{self, DURABLY, NOW, Query, SETTLED, VERSION};
use super::table::Table;
use crate::request::record_id::RecordId;
use crate::settings::policy::OnUnknown;
use crate::store::millis::millis;
use crate::store::{Claim, Holder, Record};

/// Fails a batch that waits for a lock. Otherwise one locked row would delay everyone in the batch, and two batches
/// could wait for each other.
const LIMITS: &str = "limits AS MATERIALIZED (SELECT set_config('lock_timeout', '50ms', true))";

/// Each returns one row for each transition: its result, and its place in the batch from 1 on.
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
        let (claim, complete) = (table.claim(), table.complete());
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
                FROM clock, unnest($1::bytea[]) WITH ORDINALITY AS u (id, place)",
                recorded(&sql::record_row("u.id")),
                recorded("u.id"),
            )
            .into(),
            claims: format!(
                "WITH {LIMITS}
                SELECT {claim}(id, fingerprint, owner, lease, retention, rerun, number, trace_id,
                    endpoint, label, $11), place
                FROM limits, unnest($1::bytea[], $2::bytea[], $3::bytea[], $4::bigint[], $5::bigint[],
                    $6::boolean[], $7::bigint[], $8::bytea[], $9::text[], $10::text[])
                    WITH ORDINALITY AS u (id, fingerprint, owner, lease, retention, rerun, number,
                        trace_id, endpoint, label, place)"
            )
            .into(),
            completions: format!(
                "WITH {LIMITS}
                SELECT {complete}(id, owner, fence, record, ttl), place, {DURABLY}
                FROM limits, unnest($1::bytea[], $2::bytea[], $3::bigint[], $4::bytea[], $5::bigint[])
                    WITH ORDINALITY AS u (id, owner, fence, record, ttl, place)"
            )
            .into(),
        }
    }
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

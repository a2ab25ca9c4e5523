//! The statements of the transitions. Claims use the function in `claim_function.rs`.

use std::sync::Arc;

use super::batches::Batches;
use super::complete_function;
use super::listings::Listings;
use super::reply::seen;
use super::sql::{
    self, COPIED, DURABLY, NOW, Query, SETTLED, VERSION, WRITES, is_shown, micros_since_1970,
    millis,
};
use super::table::Table;
use crate::request::record_id::RecordId;
use crate::settings::policy::OnUnknown;
pub(super) use crate::store::millis::millis as whole_millis;
use crate::store::{Claim, Holder};

/// Every statement of the store, for one table.
///
/// Times come from `clock_timestamp()`, because `now()` is the start of the transaction.
#[derive(Debug)]
pub(super) struct Statements {
    pub(super) claim: Arc<str>,
    pub(super) record: Arc<str>,
    pub(super) commit_state: Arc<str>,
    pub(super) renew: Arc<str>,
    pub(super) complete: Arc<str>,
    pub(super) complete_later: Arc<str>,
    pub(super) is_complete: Arc<str>,
    pub(super) release: Arc<str>,
    pub(super) was_taken_over: Arc<str>,
    pub(super) abandon: Arc<str>,
    pub(super) look_up: Arc<str>,
    pub(super) identify: Arc<str>,
    pub(super) forget: Arc<str>,
    pub(super) resolve: Arc<str>,
    pub(super) is_resolved: Arc<str>,
    pub(super) sweep: Arc<str>,
    pub(super) sweep_settled: Arc<str>,
    pub(super) batches: Batches,
    pub(super) listings: Listings,
}

impl Statements {
    pub(super) fn new(table: &Table) -> Self {
        let (claim, listings, batches) = (table.claim(), Listings::new(table), Batches::new(table));
        let record = format!("SELECT {}($1, $2, $3, $4, $5)", table.commit());
        let table = table.quoted();
        let record_row = sql::record_row("$1");
        let is_unsettled = format!("NOT EXISTS (SELECT FROM {table} s WHERE s.id = {record_row})");
        let shown = is_shown(&table, "r", "record");
        let held = sql::held_claim();
        // The record of another attempt has settled the claim.
        let is_overtaken = format!(
            "EXISTS (SELECT FROM {table} s WHERE s.id = {record_row}
                AND (s.owner <> $2 OR s.fence <> $3))"
        );
        Self {
            claim: format!("SELECT {claim}($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)").into(),
            record: record.into(),
            commit_state: commit_state(&table),
            renew: write(&format!(
                "UPDATE {table} SET
                    leased_until = clock_timestamp() + {lease},
                    expires_at = clock_timestamp() + {lease} + {retention}
                WHERE {held} AND NOT {is_overtaken} RETURNING 1",
                lease = millis("$4"),
                retention = millis("retention_ms"),
            )),
            complete: format!(
                "{} RETURNING {DURABLY}",
                complete_function::complete(&table)
            )
            .into(),
            complete_later: settle_by_record_row(
                &table,
                &format!("{held} AND attempt > 1"),
                "owner",
                ["$4", "$5"],
            ),
            // Writes the existing values again, because a commit waits for the disk and for
            // synchronous standbys, and a read does not.
            is_complete: durable_write(&format!(
                "UPDATE {table} SET owner = $2
                WHERE id IN ($1, {record_row}) AND owner = $2 AND fence = $3 AND record = $4
                    AND expires_at > clock_timestamp()
                RETURNING 1"
            )),
            release: durable_write(&format!(
                "DELETE FROM {table} WHERE {held} AND NOT {is_overtaken} RETURNING 1"
            )),
            was_taken_over: was_taken_over(&table),
            // `least` keeps a lapsed lease lapsed, even for a claim that read the clock earlier.
            abandon: durable_write(&format!(
                "UPDATE {table} SET
                    leased_until = least(leased_until, clock_timestamp()),
                    expires_at = clock_timestamp() + {retention}
                WHERE {held} AND NOT {is_overtaken} RETURNING 1",
                retention = millis("retention_ms"),
            )),
            look_up: format!(
                "WITH {NOW}
                SELECT {seen}, {created_at}, {settled_at}, r.trace_id, r.endpoint, r.label
                FROM {table} r, clock
                WHERE r.id IN ($1, {record_row}) AND r.expires_at > now AND {shown}",
                seen = seen(),
                created_at = micros_since_1970("r.created_at"),
                settled_at = micros_since_1970("r.settled_at"),
            )
            .into(),
            identify: format!(
                "SELECT owner, fence FROM {table} r
                WHERE id IN ($1, {record_row}) AND expires_at > clock_timestamp() AND {shown}"
            )
            .into(),
            // When the claim was settled in between, it has a record row now. `forget` then reads both rows again.
            forget: durable_write(&format!(
                "DELETE FROM {table} WHERE id IN ($1, {record_row}) AND owner = $2 AND fence = $3
                    AND record IS DISTINCT FROM {SETTLED}
                    OR id = $1 AND EXISTS (SELECT FROM {table} s
                        WHERE s.id = {record_row} AND s.owner = $2 AND s.fence = $3)
                RETURNING 1"
            )),
            resolve: settle_by_record_row(
                &table,
                &format!(
                    "id = $1 AND fence = $2 AND version = {VERSION} AND record IS NULL
                    AND leased_until <= clock_timestamp()
                    AND expires_at > clock_timestamp() AND {is_unsettled}"
                ),
                // The record is not that of the attempt, whose transaction must not count as committed.
                "''::bytea",
                ["$3", "$4"],
            ),
            is_resolved: durable_write(&format!(
                "UPDATE {table} SET fence = $2
                WHERE id IN ($1, {record_row}) AND fence = $2 AND record = $3
                    AND expires_at > clock_timestamp()
                RETURNING 1"
            )),
            sweep: sweep(&table),
            sweep_settled: sweep_settled(&table),
            batches,
            listings,
        }
    }
}

/// A takeover increments `attempt`. A claim of a free key starts at 1. The statement writes, because the removal
/// that it confirms may not have reached a standby.
fn was_taken_over(table: &str) -> Arc<str> {
    format!(
        "SELECT EXISTS (
            SELECT FROM {table}
            WHERE id IN ($1, {record_row}) AND fence <> $2 AND attempt > 1
        ) AS done, {WRITES}, {DURABLY}",
        record_row = sql::record_row("$1"),
    )
    .into()
}

/// Removes expired rows.
///
/// The inner SELECT reads the clock once, so that the index can be used. A record row stays as long as its claim
/// would be unknown without it, and a settled claim as long as its record row.
fn sweep(table: &str) -> Arc<str> {
    format!(
        "DELETE FROM {table} WHERE id = ANY (ARRAY(
            SELECT id FROM {table} r
            WHERE expires_at <= (SELECT clock_timestamp()) AND CASE
                WHEN octet_length(id) > 32 THEN NOT EXISTS (
                    SELECT FROM {table} c WHERE c.id = substr(r.id, 1, 32) AND c.record IS NULL)
                WHEN record = {SETTLED} THEN NOT EXISTS (
                    SELECT FROM {table} s WHERE s.id = {settles})
                ELSE true END
            ORDER BY expires_at LIMIT $1 FOR UPDATE SKIP LOCKED
        )) AND expires_at <= clock_timestamp()",
        settles = sql::record_row("r.id"),
    )
    .into()
}

/// Marks claims that a handler's transaction has settled. Listings of claims would otherwise have to read past
/// them until their retention ends.
fn sweep_settled(table: &str) -> Arc<str> {
    format!(
        "UPDATE {table} c SET record = {SETTLED}, settled_at = s.settled_at,
            expires_at = s.expires_at
        FROM {table} s WHERE s.id = {settled_by} AND c.id = ANY (ARRAY(
            SELECT id FROM {table} r
            WHERE record IS NULL AND leased_until <= (SELECT clock_timestamp())
                AND EXISTS (SELECT FROM {table} s WHERE s.id = {settles})
            LIMIT $1 FOR UPDATE SKIP LOCKED
        )) AND c.record IS NULL AND c.leased_until <= clock_timestamp()",
        settled_by = sql::record_row("c.id"),
        settles = sql::record_row("r.id"),
    )
    .into()
}

/// Settles a claim with a record row, and reports whether the record row is new.
///
/// The transaction of an earlier attempt may still be committed, because it does not depend on the claim.
/// The key of the record row makes this statement wait for the end of that transaction, and lets one of the
/// two records in. In both cases the claim is settled.
fn settle_by_record_row(
    table: &str,
    claim: &str,
    owner: &str,
    [record, ttl]: [&str; 2],
) -> Arc<str> {
    format!(
        "WITH claim AS (
            UPDATE {table} SET record = {SETTLED}, settled_at = clock_timestamp(),
                expires_at = clock_timestamp() + {kept}
            WHERE {claim} RETURNING *
        ),
        done AS (
            INSERT INTO {table} ({COPIED}, owner, id, retention_ms, expires_at, settled_at, record)
            SELECT {COPIED}, {owner}, {record_row}, {ttl}, expires_at, settled_at, {record}
            FROM claim ON CONFLICT (id) DO NOTHING RETURNING 1
        )
        SELECT EXISTS (SELECT FROM done) AS done, {DURABLY}",
        record_row = sql::record_row("id"),
        kept = millis(ttl),
    )
    .into()
}

/// Returns what became of the transaction of a holder, as `row::commit_state` reads it.
///
/// Writes, so that the result is durable when the statement is: a commit whose wait for a standby was
/// canceled is visible although no standby has it.
fn commit_state(table: &str) -> Arc<str> {
    format!(
        "SELECT CASE
            WHEN s.id IS NULL AND c.owner = $2 AND c.fence = $3 AND c.record IS NULL THEN 3
            WHEN s.id IS NULL THEN 4
            WHEN s.owner = $2 AND s.fence = $3 THEN 1
            ELSE 2 END, {WRITES}, {DURABLY}
        FROM (SELECT) AS one
        LEFT JOIN {table} s ON s.id = {record_row}
        LEFT JOIN {table} c ON c.id = $1",
        record_row = sql::record_row("$1"),
    )
    .into()
}

/// A write that reports whether it took effect.
fn write(write: &str) -> Arc<str> {
    format!("WITH done AS ({write}) SELECT EXISTS (SELECT FROM done) AS done").into()
}

/// A write that reports whether it took effect, and whose commit waits for the disk.
fn durable_write(write: &str) -> Arc<str> {
    format!("WITH done AS ({write}) SELECT EXISTS (SELECT FROM done) AS done, {DURABLY}").into()
}

/// Binds `$1` to `$11` of a claim.
pub(super) fn claiming(query: Query, claim: &Claim, table: &Table) -> Query {
    let Claim { origin, .. } = claim;
    query
        .bind(claim.id.as_bytes().to_vec())
        .bind(claim.fingerprint.as_bytes().to_vec())
        .bind(claim.owner.as_bytes().to_vec())
        .bind(whole_millis(claim.lease))
        .bind(whole_millis(claim.retention))
        .bind(claim.on_unknown == OnUnknown::Rerun)
        .bind(sql::number(claim.id))
        .bind(origin.trace_id().map(|id| id.as_bytes().to_vec()))
        .bind(table.text(origin.endpoint()))
        .bind(origin.label().map(|label| table.text(label)))
        .bind(claim.is_transactional)
}

/// Binds `$1` to `$3` of a holder's transition.
pub(super) fn held(query: Query, holder: Holder, fence: i64) -> Query {
    of_id(query, holder.id)
        .bind(holder.owner.as_bytes().to_vec())
        .bind(fence)
}

/// Binds `$1` of an operator's transition.
pub(super) fn of_id(query: Query, id: RecordId) -> Query {
    query.bind(id.as_bytes().to_vec())
}

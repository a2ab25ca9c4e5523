//! The statements of the transitions. Claims use the function in `claim_function.rs`.

use std::sync::Arc;

use super::answer::seen;
use super::listings::Listings;
use super::sql::{NOW, Query, VERSION, WRITES, micros_since_1970, millis};
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
    pub(super) renew: Arc<str>,
    pub(super) complete: Arc<str>,
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
    pub(super) listings: Listings,
}

/// Makes the commit of this statement wait for the disk in a session that would not wait.
const DURABLY: &str = "CASE current_setting('synchronous_commit')
    WHEN 'off' THEN set_config('synchronous_commit', 'on', true) END";

/// Selects the claim that the holder owns.
fn held_claim() -> String {
    format!(
        "id = $1 AND owner = $2 AND fence = $3 AND version = {VERSION}
        AND record IS NULL AND expires_at > clock_timestamp()"
    )
}

impl Statements {
    pub(super) fn new(table: &Table) -> Self {
        let (claim, listings) = (table.claim(), Listings::new(table));
        let table = table.quoted();
        let held = held_claim();
        Self {
            claim: format!("SELECT {claim}($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)").into(),
            renew: write(&format!(
                "UPDATE {table} SET
                    leased_until = clock_timestamp() + {lease},
                    expires_at = clock_timestamp() + {lease} + {retention}
                WHERE {held} RETURNING 1",
                lease = millis("$4"),
                retention = millis("retention_ms"),
            )),
            complete: format!(
                "UPDATE {table} SET record = $4, settled_at = clock_timestamp(),
                    expires_at = clock_timestamp() + {ttl}
                WHERE {held} RETURNING {DURABLY}",
                ttl = millis("$5"),
            )
            .into(),
            // Writes the existing values again, because a commit waits for the disk and for
            // synchronous standbys, and a read does not.
            is_complete: durable_write(&format!(
                "UPDATE {table} SET owner = $2
                WHERE id = $1 AND owner = $2 AND fence = $3 AND record = $4
                    AND expires_at > clock_timestamp()
                RETURNING 1"
            )),
            release: durable_write(&format!("DELETE FROM {table} WHERE {held} RETURNING 1")),
            // A takeover increments `attempt`. A claim of a free key starts at 1. The statement
            // writes, because the removal that it confirms may not have reached a standby.
            was_taken_over: format!(
                "SELECT EXISTS (
                    SELECT FROM {table} WHERE id = $1 AND fence <> $2 AND attempt > 1
                ) AS done, {WRITES}, {DURABLY}"
            )
            .into(),
            // `least` keeps a lapsed lease lapsed, even for a claim that read the clock earlier.
            abandon: durable_write(&format!(
                "UPDATE {table} SET
                    leased_until = least(leased_until, clock_timestamp()),
                    expires_at = clock_timestamp() + {retention}
                WHERE {held} RETURNING 1",
                retention = millis("retention_ms"),
            )),
            look_up: format!(
                "WITH {NOW}
                SELECT {seen}, {created_at}, {settled_at}, r.trace_id, r.endpoint, r.label
                FROM {table} r, clock
                WHERE r.id = $1 AND r.expires_at > now",
                seen = seen(),
                created_at = micros_since_1970("r.created_at"),
                settled_at = micros_since_1970("r.settled_at"),
            )
            .into(),
            identify: format!(
                "SELECT owner, fence FROM {table}
                WHERE id = $1 AND expires_at > clock_timestamp()"
            )
            .into(),
            forget: durable_write(&format!(
                "DELETE FROM {table} WHERE id = $1 AND owner = $2 AND fence = $3 RETURNING 1"
            )),
            resolve: durable_write(&format!(
                "UPDATE {table} SET record = $3, settled_at = clock_timestamp(),
                    expires_at = clock_timestamp() + {ttl}
                WHERE id = $1 AND fence = $2 AND version = {VERSION} AND record IS NULL
                    AND leased_until <= clock_timestamp()
                    AND expires_at > clock_timestamp()
                RETURNING 1",
                ttl = millis("$4"),
            )),
            is_resolved: durable_write(&format!(
                "UPDATE {table} SET fence = $2
                WHERE id = $1 AND fence = $2 AND record = $3
                    AND expires_at > clock_timestamp()
                RETURNING 1"
            )),
            // The inner SELECT reads the clock once, so that the index can be used.
            sweep: format!(
                "DELETE FROM {table} WHERE id = ANY (ARRAY(
                    SELECT id FROM {table}
                    WHERE expires_at <= (SELECT clock_timestamp())
                    ORDER BY expires_at LIMIT $1 FOR UPDATE SKIP LOCKED
                )) AND expires_at <= clock_timestamp()"
            )
            .into(),
            listings,
        }
    }
}

/// A write that reports whether it took effect.
fn write(write: &str) -> Arc<str> {
    format!("WITH done AS ({write}) SELECT EXISTS (SELECT FROM done) AS done").into()
}

/// A write that reports whether it took effect, and whose commit waits for the disk.
fn durable_write(write: &str) -> Arc<str> {
    format!("WITH done AS ({write}) SELECT EXISTS (SELECT FROM done) AS done, {DURABLY}").into()
}

/// Binds `$1` to `$10` of a claim. The number is in the second half of the id, because the first half is
/// the same for a whole scope.
pub(super) fn claiming(query: Query, claim: &Claim, table: &Table) -> Query {
    let (_, number) = claim.id.as_bytes().split_last_chunk().expect("32 bytes");
    let Claim { origin, .. } = claim;
    query
        .bind(claim.id.as_bytes().to_vec())
        .bind(claim.fingerprint.as_bytes().to_vec())
        .bind(claim.owner.as_bytes().to_vec())
        .bind(whole_millis(claim.lease))
        .bind(whole_millis(claim.retention))
        .bind(claim.on_unknown == OnUnknown::Rerun)
        .bind(i64::from_be_bytes(*number))
        .bind(origin.trace_id().map(|id| id.as_bytes().to_vec()))
        .bind(table.text(origin.endpoint()))
        .bind(origin.label().map(|label| table.text(label)))
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

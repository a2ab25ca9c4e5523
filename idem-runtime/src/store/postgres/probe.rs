//! Tries every statement once when the store connects, in a transaction that is rolled back.
//!
//! Without the probe, a missing right or a trigger that skips writes would show too late: when a
//! handler has run and its record cannot be written.

use std::sync::Arc;
use std::time::Duration;

use http::StatusCode;
use sqlx::postgres::PgRow;
use sqlx::{AssertSqlSafe, Error, Postgres, Transaction};

use super::batches::Completion;
use super::session::Session;
use super::setup::probe_error;
use super::sql::Query as Statement;
use super::statements::{self, Statements};
use super::table::Table;
use super::{batches, listings, row};
use crate::request::fingerprint::Fingerprint;
use crate::request::record_id::RecordId;
use crate::store::{Claim, Claimed, CommitState, Holder, Owner, Query, Record, StoreError};

/// Any bytes that do not mark a settled claim.
const RECORD: [u8; 1] = [0];

const MINUTE: Duration = Duration::from_secs(60);

/// # Errors
///
/// [`StoreError::Unfit`] when a statement is not allowed or has no effect.
pub(super) async fn probe(
    session: &mut Session,
    statements: &Statements,
    table: &Table,
    limit: Duration,
) -> Result<(), StoreError> {
    match run(session, statements, table, limit).await {
        Ok(true) => Ok(()),
        Ok(false) => Err(StoreError::Unfit(
            format!(
                "a write to the table {} has no effect; drop the trigger, rule or row security \
                 policy that skips it",
                table.quoted()
            )
            .into(),
        )),
        Err(error) => Err(probe_error(session, error, table, limit).await),
    }
}

/// Whether every statement had its intended effect.
async fn run(
    session: &mut Session,
    statements: &Statements,
    table: &Table,
    limit: Duration,
) -> Result<bool, Error> {
    let mut probe = Probe {
        transaction: session.begin(limit).await?,
        statements,
        table,
        id: unused_id(),
    };
    let works = probe.settles().await?
        && probe.settles_later().await?
        && probe.resolves().await?
        && probe.releases().await?
        && probe.commits().await?
        && probe.lists().await?
        && probe.batches().await?;
    for sweep in [&statements.sweep, &statements.sweep_settled] {
        probe.send(sweep, |query| query.bind(0_i64)).await?;
    }
    probe.transaction.rollback().await?;
    Ok(works)
}

struct Probe<'s> {
    transaction: Transaction<'s, Postgres>,
    statements: &'s Statements,
    table: &'s Table,
    id: RecordId,
}

impl Probe<'_> {
    async fn settles(&mut self) -> Result<bool, Error> {
        let Some((holder, fence)) = self.claim().await? else {
            return Ok(false);
        };
        let statements = self.statements;
        let held = |query| statements::held(query, holder, fence);
        let renew = |query| held(query).bind(statements::whole_millis(MINUTE));
        let keep = |query| held(query).bind(RECORD.to_vec());
        let complete = |query| keep(query).bind(statements::whole_millis(MINUTE));
        let of_id = |query| statements::of_id(query, holder.id);
        Ok(self.does(&statements.renew, renew).await?
            && !self.send(&statements.complete, complete).await?.is_empty()
            && self.does(&statements.is_complete, keep).await?
            && !self.send(&statements.look_up, of_id).await?.is_empty()
            && !self.send(&statements.identify, of_id).await?.is_empty()
            && self.does(&statements.forget, held).await?)
    }

    async fn resolves(&mut self) -> Result<bool, Error> {
        let Some((holder, fence)) = self.claim().await? else {
            return Ok(false);
        };
        let statements = self.statements;
        let held = |query| statements::held(query, holder, fence);
        let of_fence = |query: Statement| statements::of_id(query, holder.id).bind(fence);
        let keep = |query| of_fence(query).bind(RECORD.to_vec());
        let resolve = |query| keep(query).bind(statements::whole_millis(MINUTE));
        // A resolved record has no owner.
        let resolved = |query: Statement| {
            statements::of_id(query, holder.id)
                .bind(Vec::<u8>::new())
                .bind(fence)
        };
        Ok(self.does(&statements.abandon, held).await?
            && self.does(&statements.resolve, resolve).await?
            && self.does(&statements.is_resolved, keep).await?
            && !self.does(&statements.was_taken_over, of_fence).await?
            && self.does(&statements.forget, resolved).await?)
    }

    async fn settles_later(&mut self) -> Result<bool, Error> {
        let Some((first, fence)) = self.claim().await? else {
            return Ok(false);
        };
        let statements = self.statements;
        let abandon = |query| statements::held(query, first, fence);
        if !self.does(&statements.abandon, abandon).await? {
            return Ok(false);
        }
        let Some((later, fence)) = self.claim().await? else {
            return Ok(false);
        };
        let held = |query| statements::held(query, later, fence);
        let complete = |query| {
            held(query)
                .bind(RECORD.to_vec())
                .bind(statements::whole_millis(MINUTE))
        };
        Ok(self.does(&statements.complete_later, complete).await?
            && self.does(&statements.forget, held).await?)
    }

    /// The batches set a limit for locks, so they come last.
    async fn batches(&mut self) -> Result<bool, Error> {
        let (statements, table) = (self.statements, self.table);
        let claim = Claim::new(self.id, Fingerprint::from_bytes([0; 32]), MINUTE, MINUTE);
        let claims = [claim];
        let claiming = |query| batches::claiming(query, &claims, table);
        let rows = self.send(&statements.batches.claims, claiming).await?;
        let Some(Ok(Some(Claimed::Fresh { fence, .. }))) = rows.first().map(row::claimed) else {
            return Ok(false);
        };
        let [claim] = claims;
        let Ok(fence_number) = i64::try_from(fence) else {
            return Ok(false);
        };
        let record = Record::not_kept(claim.fingerprint, StatusCode::OK);
        let completions = [Completion {
            holder: Holder {
                id: claim.id,
                owner: claim.owner,
                fence,
            },
            fence: fence_number,
            record,
            ttl: statements::whole_millis(MINUTE),
        }];
        let completing = |query| batches::completing(query, &completions);
        let replaying = |query| batches::replaying(query, &[claim.id]);
        if !self
            .does(&statements.batches.completions, completing)
            .await?
        {
            return Ok(false);
        }
        let rows = self.send(&statements.batches.replays, replaying).await?;
        let replay = rows.first().map(row::claimed);
        Ok(matches!(replay, Some(Ok(Some(Claimed::Recorded { .. })))))
    }

    async fn releases(&mut self) -> Result<bool, Error> {
        let Some((holder, fence)) = self.claim().await? else {
            return Ok(false);
        };
        let release = |query| statements::held(query, holder, fence);
        self.does(&self.statements.release, release).await
    }

    async fn commits(&mut self) -> Result<bool, Error> {
        let Some((holder, fence)) = self.claim().await? else {
            return Ok(false);
        };
        let statements = self.statements;
        let held = |query| statements::held(query, holder, fence);
        let record = |query| {
            held(query)
                .bind(RECORD.to_vec())
                .bind(statements::whole_millis(MINUTE))
        };
        self.send(&statements.record, record).await?;
        let found = self.send(&statements.commit_state, held).await?;
        let state = found.first().and_then(|row| row::commit_state(row).ok());
        Ok(state == Some(CommitState::Mine) && self.does(&statements.forget, held).await?)
    }

    async fn lists(&mut self) -> Result<bool, Error> {
        let Some((holder, _)) = self.claim().await? else {
            return Ok(false);
        };
        let (statements, table) = (self.statements, self.table);
        let query = Query::all().short(holder.id.short());
        for statement in statements.listings.all() {
            let range = (holder.id, holder.id);
            let bind = |it| listings::listing(it, &query, range, 2, table);
            if self.send(statement, bind).await?.is_empty() {
                return Ok(false);
            }
        }
        let stats = self.send(&statements.listings.stats, |it| it).await?;
        if stats.is_empty() {
            return Ok(false);
        }
        let scope = holder.id.scope_id();
        let bind = |it| listings::forgetting(it, scope, 1);
        let listings = &statements.listings;
        for (statement, expected) in [
            (&listings.forget_scope, (1, 1)),
            (&listings.forget_late, (0, 0)),
        ] {
            let forgotten = self.send(statement, bind).await?;
            let counts = forgotten.first().and_then(|row| row::counts(row).ok());
            if counts != Some(expected) {
                return Ok(false);
            }
        }
        Ok(true)
    }

    async fn claim(&mut self) -> Result<Option<(Holder, i64)>, Error> {
        let fingerprint = Fingerprint::from_bytes([0; 32]);
        let claim = Claim::new(self.id, fingerprint, MINUTE, MINUTE);
        let table = self.table;
        let rows = self.send(&self.statements.claim, |query| {
            statements::claiming(query, &claim, table)
        });
        let rows = rows.await?;
        let claimed = rows
            .first()
            .and_then(|row| row::claimed(row).ok().flatten());
        let Some(Claimed::Fresh { fence, .. }) = claimed else {
            return Ok(None);
        };
        let holder = Holder {
            id: claim.id,
            owner: claim.owner,
            fence,
        };
        Ok(i64::try_from(fence).ok().map(|fence| (holder, fence)))
    }

    async fn does(
        &mut self,
        statement: &Arc<str>,
        bind: impl FnOnce(Statement) -> Statement,
    ) -> Result<bool, Error> {
        let rows = self.send(statement, bind).await?;
        Ok(rows
            .first()
            .is_some_and(|row| row::done(row).unwrap_or(false)))
    }

    async fn send(
        &mut self,
        statement: &Arc<str>,
        bind: impl FnOnce(Statement) -> Statement,
    ) -> Result<Vec<PgRow>, Error> {
        let query = sqlx::query(AssertSqlSafe(statement.clone())).persistent(false);
        bind(query).fetch_all(&mut *self.transaction).await
    }
}

/// An id that no request can have.
fn unused_id() -> RecordId {
    let mut bytes = [0; 32];
    bytes[..16].copy_from_slice(Owner::unique().as_bytes());
    bytes[16..].copy_from_slice(Owner::unique().as_bytes());
    RecordId::from_bytes(bytes)
}

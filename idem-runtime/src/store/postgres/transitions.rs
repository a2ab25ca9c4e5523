//! The transitions of a claim and its record, each with the statements that it sends.

use std::sync::Arc;
use std::time::Duration;

use sqlx::postgres::PgRow;
use tokio::time::Instant;

use super::batches::Completion;
use super::retries::Tries;
use super::sql::Query;
use super::statements::{self, Statements, whole_millis};
use super::{Inner, only, row};
use crate::request::record_id::RecordId;
use crate::store::{Claim, Claimed, Entry, Holder, Record, Settled, StoreError};

/// Longer records are stored alone, so that a batch stays small.
const LONGEST_RECORD: usize = 16 * 1024;

impl Inner {
    pub(super) async fn claim(self: &Arc<Self>, claim: Claim) -> Result<Claimed, StoreError> {
        let deadline = self.deadline();
        if let Some(lane) = self.claims_like(&claim).lane() {
            let claimed = self.claim_alone(&claim, deadline).await;
            lane.leave().await;
            return claimed;
        }
        // Boxed because it is long. Unboxed, it would enlarge the future of every claim.
        Box::pin(self.claim_together(claim, deadline)).await
    }

    pub(super) async fn claim_alone(
        &self,
        claim: &Claim,
        deadline: Instant,
    ) -> Result<Claimed, StoreError> {
        let bind = |query| statements::claiming(query, claim, &self.table);
        let read = |rows: &[PgRow], _| row::claimed(only(rows)?);
        // All other results only read.
        let wrote = |claimed: &Claimed| matches!(claimed, Claimed::Fresh { .. });
        let statement = &self.statements.claim;
        self.send_and_confirm(deadline, statement, bind, read, wrote)
            .await
    }

    /// A transition of a claim's holder that can be repeated without side effects.
    pub(super) async fn settle(
        &self,
        statement: &Arc<str>,
        holder: Holder,
        bind: impl Fn(Query) -> Query,
    ) -> Result<Settled, StoreError> {
        let Ok(fence) = i64::try_from(holder.fence) else {
            return Ok(Settled::Lost);
        };
        let bind = |query: Query| bind(statements::held(query, holder, fence));
        let done = self.send(self.deadline(), statement, bind, is_done).await?;
        Ok(row::settled(done))
    }

    pub(super) async fn complete(
        self: &Arc<Self>,
        holder: Holder,
        record: &Record,
        ttl: Duration,
    ) -> Result<Settled, StoreError> {
        let Ok(fence) = i64::try_from(holder.fence) else {
            return Ok(Settled::Lost);
        };
        let deadline = self.deadline();
        let lane = self.completions.lane();
        if lane.is_none() && record.as_bytes().len() <= LONGEST_RECORD {
            let completion = Completion {
                holder,
                fence,
                record: record.clone(),
                ttl: whole_millis(ttl),
            };
            let together = Box::pin(self.complete_together(completion, deadline));
            if together.await? {
                return Ok(Settled::Done);
            }
        }
        let Statements {
            complete,
            complete_later,
            is_complete,
            ..
        } = &self.statements;
        let keep = |query| {
            let query = statements::held(query, holder, fence);
            query.bind(record.as_bytes().to_vec())
        };
        let keep_for = |query| keep(query).bind(whole_millis(ttl));
        let was_held = |rows: &[PgRow], _| Ok(Some(!rows.is_empty()));
        let done = self.send(deadline, complete, keep_for, was_held).await?
            || self.send(deadline, complete_later, keep_for, is_done).await?
            // A holder whose first reply was lost sends the same record again. The record is
            // already stored, and its ttl continues.
            || self.send(deadline, is_complete, keep, is_done).await?;
        drop(lane);
        Ok(row::settled(done))
    }

    pub(super) async fn release(&self, holder: Holder) -> Result<Settled, StoreError> {
        let Ok(fence) = i64::try_from(holder.fence) else {
            return Ok(Settled::Lost);
        };
        let Statements {
            release,
            was_taken_over,
            ..
        } = &self.statements;
        let deadline = self.deadline();
        let held = |query| statements::held(query, holder, fence);
        let (done, tries) = self.send(deadline, release, held, is_done_after).await?;
        if done || tries == Tries::First {
            return Ok(row::settled(done));
        }
        // The claim is gone. If no other attempt took it over, the try whose reply was lost has
        // released it.
        let of_fence = |query| statements::of_id(query, holder.id).bind(fence);
        let lost = self
            .send(deadline, was_taken_over, of_fence, is_done)
            .await?;
        Ok(row::settled(!lost))
    }

    pub(super) async fn look_up(&self, id: RecordId) -> Result<Option<Entry>, StoreError> {
        let bind = |query| statements::of_id(query, id);
        let read = |rows: &[PgRow], _| rows.first().map(row::entry).transpose().map(Some);
        self.send(self.deadline(), &self.statements.look_up, bind, read)
            .await
    }

    /// Removes only the rows that it has read. If the statement is sent again after its reply was
    /// lost, it must not remove a newer claim.
    ///
    /// The removal of a claim waits for the transactions that have recorded under it. So the record of such a
    /// transaction is there afterwards, with the same fence or a lower one, and is removed too.
    pub(super) async fn forget(&self, id: RecordId) -> Result<bool, StoreError> {
        let Statements {
            identify,
            forget,
            was_taken_over,
            ..
        } = &self.statements;
        let deadline = self.deadline();
        let of_id = |query| statements::of_id(query, id);
        let identity = |rows: &[PgRow], _| rows.first().map(row::identity).transpose().map(Some);
        let mut forgotten = None;
        loop {
            let Some((owner, fence)) = self.send(deadline, identify, of_id, identity).await? else {
                return Ok(forgotten.is_some());
            };
            if forgotten.is_some_and(|forgotten| forgotten < fence) {
                return Ok(true);
            }
            let found = |query| of_id(query).bind(owner.clone()).bind(fence);
            let (done, tries) = self.send(deadline, forget, found, is_done_after).await?;
            // The row is gone. If no other attempt took it over, the try whose reply was lost
            // removed it.
            let of_fence = |query| of_id(query).bind(fence);
            if done
                || tries == Tries::Repeated
                    && !self
                        .send(deadline, was_taken_over, of_fence, is_done)
                        .await?
            {
                forgotten = Some(fence);
            }
        }
    }

    pub(super) async fn resolve(
        &self,
        id: RecordId,
        fence: u64,
        record: Record,
        ttl: Duration,
    ) -> Result<Settled, StoreError> {
        let Ok(fence) = i64::try_from(fence) else {
            return Ok(Settled::Lost);
        };
        let Statements {
            resolve,
            is_resolved,
            ..
        } = &self.statements;
        let deadline = self.deadline();
        let keep = |query| {
            let query = statements::of_id(query, id).bind(fence);
            query.bind(record.as_bytes().to_vec())
        };
        let keep_for = |query| keep(query).bind(whole_millis(ttl));
        let (done, tries) = self
            .send(deadline, resolve, keep_for, is_done_after)
            .await?;
        // The try whose reply was lost may have stored the record.
        let done = done
            || tries == Tries::Repeated && self.send(deadline, is_resolved, keep, is_done).await?;
        Ok(row::settled(done))
    }
}

fn is_done(rows: &[PgRow], _: Tries) -> Result<Option<bool>, StoreError> {
    row::done(only(rows)?).map(Some)
}

/// Like [`is_done`], and also returns whether an earlier try may have taken effect.
fn is_done_after(rows: &[PgRow], tries: Tries) -> Result<Option<(bool, Tries)>, StoreError> {
    row::done(only(rows)?).map(|done| Some((done, tries)))
}

//! Claims and completions under load: callers who come while others wait for the server share a transaction.

use std::cmp::Ordering;
use std::sync::Arc;

use sqlx::AssertSqlSafe;
use sqlx::postgres::PgRow;
use tokio::time::{Instant, timeout_at};

use super::batches::{self, Completion};
use super::failure::{Remedy, remedy, store_error};
use super::sql::Query;
use super::{Claims, Inner, row};
use crate::request::record_id::RecordId;
use crate::store::batch::{NoResult, Results};
use crate::store::{Claim, Claimed, StoreError};

/// Whether the statement of a batch writes. The commit of a write may wait for standbys.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Access {
    Reads,
    Writes,
}

impl Inner {
    /// A claim that meets others. Where the commit of new claims waits for the disk, replays are read first.
    ///
    /// When the batch may still run, the claim fails, and the engine repeats it. The batch may then grant the claim after the
    /// repeated claim was released. The engine looks for such a grant and gives it back.
    pub(super) async fn claim_together(
        self: &Arc<Self>,
        claim: Claim,
        deadline: Instant,
    ) -> Result<Claimed, StoreError> {
        let together = async {
            if !claim.is_transactional {
                let inner = self.clone();
                let replay = async move |ids| inner.replay_all(ids, deadline).await;
                match self.replays.run(claim.id, replay).await {
                    Err(NoResult::Ended | NoResult::Lost) => {}
                    // A replay, or no patience left to wait for a batch of claims.
                    replay => return replay,
                }
            }
            let inner = self.clone();
            let claims = async move |claims| inner.claim_all(claims, deadline).await;
            self.claims_like(&claim).run(claim.clone(), claims).await
        };
        match timeout_at(deadline, together).await {
            Ok(Ok(result)) => result,
            Ok(Err(NoResult::Lost)) => Err(StoreError::Unavailable(
                "the reply to a statement for several claims was lost".into(),
            )),
            Ok(Err(_)) if Instant::now() < deadline => self.claim_alone(&claim, deadline).await,
            Ok(Err(_)) | Err(_) => Err(StoreError::TimedOut),
        }
    }

    /// The claims that share their transactions with this claim.
    pub(super) fn claims_like(&self, claim: &Claim) -> &Arc<Claims> {
        if claim.is_transactional {
            &self.quick_claims
        } else {
            &self.claims
        }
    }

    /// Returns whether the record was stored by a batch. If not, the completion has to be sent alone: it may be repeated.
    pub(super) async fn complete_together(
        self: &Arc<Self>,
        completion: Completion,
        deadline: Instant,
    ) -> Result<bool, StoreError> {
        let inner = self.clone();
        let complete = async move |completions| inner.complete_all(completions, deadline).await;
        let done = self.completions.run(completion, complete);
        match timeout_at(deadline, done).await {
            Ok(Err(_)) if Instant::now() >= deadline => Err(StoreError::TimedOut),
            Ok(done) => Ok(done.is_ok()),
            Err(_) => Err(StoreError::TimedOut),
        }
    }

    /// The records of these ids. The others have no result.
    async fn replay_all(
        &self,
        ids: Vec<RecordId>,
        deadline: Instant,
    ) -> Results<Result<Claimed, StoreError>> {
        let bind = |query| batches::replaying(query, &ids);
        let statement = &self.statements.batches.replays;
        let rows = self.send_together(deadline, Access::Reads, statement, bind);
        let order: Vec<_> = (0..ids.len()).collect();
        let replay = |row: &PgRow| row::claimed(row).transpose();
        Ok(in_order(&order, &rows.await?, replay))
    }

    async fn claim_all(
        &self,
        claims: Vec<Claim>,
        deadline: Instant,
    ) -> Results<Result<Claimed, StoreError>> {
        let (claims, order) = sorted(claims, |one, other| {
            one.id.as_bytes().cmp(other.id.as_bytes())
        });
        let bind = |query| batches::claiming(query, &claims, &self.table);
        let statement = &self.statements.batches.claims;
        let rows = self.send_together(deadline, Access::Writes, statement, bind);
        let claimed = |row: &PgRow| row::claimed(row).transpose();
        Ok(in_order(&order, &rows.await?, claimed))
    }

    async fn complete_all(&self, completions: Vec<Completion>, deadline: Instant) -> Results<()> {
        let id = |completion: &Completion| completion.holder.id;
        let by_id = |one: &_, other: &_| id(one).as_bytes().cmp(id(other).as_bytes());
        let (completions, order) = sorted(completions, by_id);
        let bind = |query| batches::completing(query, &completions);
        let statement = &self.statements.batches.completions;
        let rows = self.send_together(deadline, Access::Writes, statement, bind);
        let done = |row: &PgRow| row::done(row).ok()?.then_some(());
        Ok(in_order(&order, &rows.await?, done))
    }

    /// Sends a batch once.
    ///
    /// # Errors
    ///
    /// [`NoResult::Lost`] when the statement may still run, and [`NoResult::Ended`] when it failed or when its commit may not
    /// have reached a standby. Then each caller sends its own transition, which may repeat one that took effect.
    async fn send_together(
        &self,
        deadline: Instant,
        access: Access,
        statement: &Arc<str>,
        bind: impl FnOnce(Query) -> Query,
    ) -> Result<Vec<PgRow>, NoResult> {
        let leased = self.connections.acquire(deadline).await;
        let mut leased = leased.map_err(|_| NoResult::Ended)?;
        let session = leased.session();
        let query = bind(sqlx::query(AssertSqlSafe(statement.clone())));
        let asked_at = Instant::now();
        let rows = timeout_at(deadline, session.run(query)).await;
        match rows.map_err(|_| NoResult::Lost)? {
            Ok(rows) => {
                // A slow commit may have waited for a standby until somebody canceled the wait.
                if access == Access::Writes
                    && self.is_slow(asked_at)
                    && self
                        .waits_for_standbys(deadline, session)
                        .await
                        .map_err(|_| NoResult::Ended)?
                {
                    leased.keep();
                    return Err(NoResult::Ended);
                }
                leased.keep();
                Ok(rows)
            }
            Err(error) => {
                let remedy = remedy(&error);
                let error = store_error(error, &self.table);
                match remedy {
                    Remedy::Again | Remedy::Report => leased.keep(),
                    Remedy::Elsewhere => {
                        leased.close(&error);
                        return Err(NoResult::Lost);
                    }
                    Remedy::OtherServer => {
                        leased.leave(&error);
                    }
                }
                Err(NoResult::Ended)
            }
        }
    }
}

/// Sorts the jobs of a batch, so that all batches lock rows in the same order. Also returns the former place of each
/// job.
fn sorted<J>(jobs: Vec<J>, compare: impl Fn(&J, &J) -> Ordering) -> (Vec<J>, Vec<usize>) {
    let mut jobs: Vec<_> = jobs.into_iter().enumerate().collect();
    jobs.sort_by(|(_, one), (_, other)| compare(one, other));
    jobs.into_iter().map(|(place, job)| (job, place)).unzip()
}

/// The results of sorted jobs, each in the former place of its job. The server says to which job a row belongs.
fn in_order<R>(
    order: &[usize],
    rows: &[PgRow],
    read: impl Fn(&PgRow) -> Option<R>,
) -> Vec<Option<R>> {
    let mut results: Vec<_> = order.iter().map(|_| None).collect();
    for row in rows {
        let result = row::place(row).and_then(|place| results.get_mut(*order.get(place)?));
        if let Some(result) = result {
            *result = read(row);
        }
    }
    results
}

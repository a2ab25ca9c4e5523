//! Claims and completions under load: callers who come while others wait for the server share a transaction.

use std::cmp::Ordering;
use std::sync::Arc;

use sqlx::AssertSqlSafe;
use sqlx::postgres::PgRow;
use tokio::time::{Instant, timeout_at};

use super::batches::{self, Completion};
use super::failure::{Remedy, remedy, store_error};
use super::sql::Query;
use super::{Inner, row};
use crate::request::record_id::RecordId;
use crate::store::{Claim, Claimed, StoreError};

impl Inner {
    /// A claim that meets others. Replays are read first, because the commit of new claims waits for the disk.
    pub(super) async fn claim_together(
        &self,
        claim: Claim,
        deadline: Instant,
    ) -> Result<Claimed, StoreError> {
        let together = async {
            let replay = |ids| self.replay_all(ids, deadline);
            if let Some(replay) = self.replays.run(claim.id, replay).await {
                return Some(replay);
            }
            let claims = |claims| self.claim_all(claims, deadline);
            self.claims.run(claim.clone(), claims).await
        };
        match timeout_at(deadline, together).await {
            Ok(Some(result)) => result,
            Ok(None) => self.claim_alone(&claim, deadline).await,
            Err(_) => Err(StoreError::TimedOut),
        }
    }

    /// Returns whether the record was stored by a batch. If not, the completion has to be sent alone.
    pub(super) async fn complete_together(
        &self,
        completion: Completion,
        deadline: Instant,
    ) -> Result<bool, StoreError> {
        let complete = |completions| self.complete_all(completions, deadline);
        let done = self.completions.run(completion, complete);
        match timeout_at(deadline, done).await {
            Ok(done) => Ok(done.is_some()),
            Err(_) => Err(StoreError::TimedOut),
        }
    }

    /// The records of these ids. The others have no result.
    async fn replay_all(
        &self,
        ids: Vec<RecordId>,
        deadline: Instant,
    ) -> Vec<Option<Result<Claimed, StoreError>>> {
        let bind = |query| batches::replaying(query, &ids);
        let statement = &self.statements.batches.replays;
        let rows = self.send_together(deadline, statement, bind).await;
        let order: Vec<_> = (0..ids.len()).collect();
        in_order(&order, rows, |row| row::claimed(row).transpose())
    }

    async fn claim_all(
        &self,
        claims: Vec<Claim>,
        deadline: Instant,
    ) -> Vec<Option<Result<Claimed, StoreError>>> {
        let (claims, order) = sorted(claims, |one, other| {
            one.id.as_bytes().cmp(other.id.as_bytes())
        });
        let bind = |query| batches::claiming(query, &claims, &self.table);
        let statement = &self.statements.batches.claims;
        let rows = self.send_together(deadline, statement, bind).await;
        in_order(&order, rows, |row| row::claimed(row).transpose())
    }

    async fn complete_all(
        &self,
        completions: Vec<Completion>,
        deadline: Instant,
    ) -> Vec<Option<()>> {
        let id = |completion: &Completion| completion.holder.id;
        let by_id = |one: &_, other: &_| id(one).as_bytes().cmp(id(other).as_bytes());
        let (completions, order) = sorted(completions, by_id);
        let bind = |query| batches::completing(query, &completions);
        let statement = &self.statements.batches.completions;
        let rows = self.send_together(deadline, statement, bind).await;
        in_order(&order, rows, |row| row::done(row).ok()?.then_some(()))
    }

    /// Sends a batch once. Returns `None` when its outcome is not certain: then each caller sends its own
    /// transition, which may repeat one that took effect.
    async fn send_together(
        &self,
        deadline: Instant,
        statement: &Arc<str>,
        bind: impl FnOnce(Query) -> Query,
    ) -> Option<Vec<PgRow>> {
        let mut leased = self.connections.acquire(deadline).await.ok()?;
        let query = bind(sqlx::query(AssertSqlSafe(statement.clone())));
        let asked_at = Instant::now();
        let rows = timeout_at(deadline, leased.session().run(query)).await;
        match rows.ok()? {
            Ok(rows) => {
                leased.keep();
                // A slow commit may have waited for a standby until somebody canceled the wait.
                (!self.is_slow(asked_at)).then_some(rows)
            }
            Err(error) => {
                let remedy = remedy(&error);
                let error = store_error(error, &self.table);
                match remedy {
                    Remedy::Again | Remedy::Report => leased.keep(),
                    Remedy::Elsewhere => leased.close(&error),
                    Remedy::OtherServer => {
                        leased.leave(&error);
                    }
                }
                None
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
    rows: Option<Vec<PgRow>>,
    read: impl Fn(&PgRow) -> Option<R>,
) -> Vec<Option<R>> {
    let mut results: Vec<_> = order.iter().map(|_| None).collect();
    for row in rows.unwrap_or_default() {
        let result = row::place(&row).and_then(|place| results.get_mut(*order.get(place)?));
        if let Some(result) = result {
            *result = read(&row);
        }
    }
    results
}

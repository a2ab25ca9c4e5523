//! The transitions: each reads a row and writes the row, inside the transaction of the writer.

use std::sync::Arc;
use std::time::Duration;

use sqlx::sqlite::{SqliteArguments, SqliteConnection, SqliteRow};
use sqlx::{AssertSqlSafe, Sqlite};

use super::clock::{micros, now};
use super::failure::store_error;
use super::instance::Instance;
use super::room::Room;
use super::row::{Held, Met, meet, number};
use super::table::{ROWS, Statements};
use crate::request::record_id::RecordId;
use crate::request::scope_id::ScopeId;
use crate::store::{Claim, Claimed, Holder, Record, Settled, StoreError};

pub(super) type Query = sqlx::query::Query<'static, Sqlite, SqliteArguments>;

/// How many rows one transition removes. The limit keeps a transaction short.
pub(super) const BATCH: u32 = 1_000;

/// How long the sweeper leaves an expired claim whose store may have extended its lease.
const LONGEST_EXTENSION: Duration = Duration::from_secs(24 * 60 * 60);

/// A transition that may write.
#[derive(Clone, Debug)]
pub(super) enum Transition {
    Claim(Box<Claim>),
    Renew(Holder, Duration),
    Complete(Holder, Record, Duration),
    Release(Holder),
    Abandon(Holder),
    Forget(RecordId),
    Resolve(RecordId, u64, Record, Duration),
    ForgetScope(ScopeId),
    /// Ends the leases of an instance that has ended.
    EndLeases(i64),
    Sweep,
}

/// The result of a transition.
#[derive(Debug)]
pub(super) enum Outcome {
    Claimed(Claimed),
    /// Whether the transition took effect.
    Done(bool),
    /// How many rows were removed, and how many of them had not expired.
    Removed {
        rows: u64,
        live: u64,
    },
}

/// Why a transition has no outcome.
#[derive(Debug)]
pub(super) enum Failed {
    /// The database failed. The transaction is rolled back.
    Database(sqlx::Error),
    /// The row cannot be used. Other transitions in the transaction can continue.
    Row(StoreError),
}

impl From<sqlx::Error> for Failed {
    fn from(error: sqlx::Error) -> Self {
        Self::Database(error)
    }
}

impl From<StoreError> for Failed {
    fn from(error: StoreError) -> Self {
        Self::Row(error)
    }
}

impl From<Failed> for StoreError {
    fn from(failed: Failed) -> Self {
        match failed {
            Failed::Database(error) => store_error(error),
            Failed::Row(error) => error,
        }
    }
}

/// The state that the transitions of one transaction share.
pub(super) struct Shared<'a> {
    pub(super) statements: &'a Statements,
    /// The highest fence that any claim has had.
    pub(super) last_fence: i64,
    pub(super) instance: &'a Instance,
    /// `None` without a limit.
    pub(super) room: Option<Room>,
}

/// A statement, whose preparation the connection caches.
pub(super) fn query(statement: &Arc<str>) -> Query {
    sqlx::query(AssertSqlSafe(statement.clone()))
}

/// Cuts jobs into pieces for which there is a statement. Returns each with the place of its first job.
pub(super) fn chunks<T>(jobs: &[T]) -> impl Iterator<Item = (usize, &[T])> {
    let mut from = 0;
    std::iter::from_fn(move || {
        let rest = &jobs[from..];
        let rows = ROWS.into_iter().rev().find(|rows| *rows <= rest.len())?;
        let chunk = (from, &rest[..rows]);
        from += rows;
        Some(chunk)
    })
}

pub(super) fn blob(bytes: &[u8]) -> Vec<u8> {
    bytes.to_vec()
}

pub(super) async fn held(
    connection: &mut SqliteConnection,
    statements: &Statements,
    id: RecordId,
) -> Result<Option<Held>, Failed> {
    let row = query(&statements.held).bind(blob(id.as_bytes()));
    let row: Option<SqliteRow> = row.fetch_optional(connection).await?;
    Ok(row.as_ref().map(Held::read).transpose()?)
}

impl Shared<'_> {
    pub(super) async fn apply(
        &mut self,
        connection: &mut SqliteConnection,
        transition: &Transition,
    ) -> Result<Outcome, Failed> {
        let statements = self.statements;
        let by_id = |statement, id: RecordId| query(statement).bind(blob(id.as_bytes()));
        let id = match transition {
            Transition::Claim(claim) => return self.claim(connection, claim).await,
            Transition::ForgetScope(scope) => return self.forget_scope(connection, *scope).await,
            Transition::EndLeases(instance) => {
                let end = query(&statements.end_leases)
                    .bind(*instance)
                    .bind(now())
                    .bind(self.instance.held_until(*instance));
                let ended = end.execute(connection).await?.rows_affected();
                self.end_reservations(ended);
                return Ok(Outcome::Done(ended > 0));
            }
            Transition::Sweep => return self.sweep(connection).await,
            Transition::Renew(holder, _)
            | Transition::Complete(holder, ..)
            | Transition::Release(holder)
            | Transition::Abandon(holder) => holder.id,
            Transition::Forget(id) | Transition::Resolve(id, ..) => *id,
        };
        let now = now();
        let held = held(connection, statements, id).await;
        // An operator can remove a row that this version cannot read.
        if let (Transition::Forget(_), Err(Failed::Row(_))) = (transition, &held) {
            by_id(&statements.delete, id).execute(connection).await?;
            return Ok(Outcome::Done(true));
        }
        let held = held?.map(|held| held.extended(self.instance, now));
        // A holder whose first reply was lost sends the same record again.
        if let (Transition::Complete(holder, record, _), Some(held)) = (transition, &held)
            && held.has_recorded(holder, record, now)
        {
            return Ok(Outcome::Done(true));
        }
        let Some(held) = held.filter(|held| match transition {
            Transition::Forget(_) => held.is_alive(now),
            Transition::Resolve(_, fence, ..) => held.is_unknown(*fence, now),
            Transition::Renew(holder, _)
            | Transition::Complete(holder, ..)
            | Transition::Release(holder)
            | Transition::Abandon(holder) => held.is_held_by(holder, now),
            _ => false,
        }) else {
            return Ok(Outcome::Done(false));
        };
        let write = match transition {
            Transition::Renew(_, lease) => {
                let leased_until = now.saturating_add(micros(*lease));
                by_id(&statements.renew, id)
                    .bind(leased_until)
                    .bind(leased_until.saturating_add(held.retention))
            }
            // `min` keeps a lapsed lease lapsed, even when the clock was set back.
            Transition::Abandon(_) => by_id(&statements.abandon, id)
                .bind(held.leased_until.min(now))
                .bind(now.saturating_add(held.retention)),
            Transition::Complete(_, record, ttl) | Transition::Resolve(_, _, record, ttl) => {
                let statement = match transition {
                    Transition::Resolve(..) => &statements.resolve,
                    _ => &statements.complete,
                };
                by_id(statement, id)
                    .bind(blob(record.as_bytes()))
                    .bind(now)
                    .bind(now.saturating_add(micros(*ttl)))
            }
            _ => by_id(&statements.delete, id),
        };
        write.execute(connection).await?;
        if !matches!(transition, Transition::Renew(..)) && held.reserves_room(now) {
            self.end_reservations(1);
        }
        Ok(Outcome::Done(true))
    }

    /// Claims were settled, given up or forgotten.
    pub(super) fn end_reservations(&mut self, claims: u64) {
        if let Some(room) = &mut self.room {
            room.end(claims);
        }
    }

    async fn claim(
        &mut self,
        connection: &mut SqliteConnection,
        claim: &Claim,
    ) -> Result<Outcome, Failed> {
        let now = now();
        let held = held(connection, self.statements, claim.id).await?;
        let held = held.map(|held| held.extended(self.instance, now));
        let lapsed = match meet(held, claim, now)? {
            Met::Claimed(claimed) | Met::InFlight(claimed, _) => {
                return Ok(Outcome::Claimed(claimed));
            }
            Met::Nothing => None,
            Met::Lapsed(held) if !held.may_rerun(claim) => {
                return Ok(Outcome::Claimed(held.unknown()));
            }
            Met::Lapsed(held) => Some(held),
        };
        if !lapsed.as_ref().is_some_and(|held| held.reserves_room(now))
            && let Some(room) = &mut self.room
            && !room.reserve()
        {
            return Ok(Outcome::Claimed(Claimed::Full));
        }
        let retention = micros(claim.retention);
        let leased_until = now.saturating_add(micros(claim.lease));
        let expires_at = leased_until.saturating_add(retention);
        let taken = lapsed.as_ref().map_or(0, |held| held.fence);
        let fence = self.next_fence(taken, now);
        let owner = blob(claim.owner.as_bytes());
        let statement = match lapsed {
            Some(_) => &self.statements.take_over,
            None => &self.statements.insert,
        };
        let write = query(statement)
            .bind(blob(claim.id.as_bytes()))
            .bind(fence)
            .bind(leased_until)
            .bind(expires_at)
            .bind(retention);
        let origin = &claim.origin;
        let write = match lapsed {
            Some(_) => write.bind(owner).bind(self.instance.number()),
            None => write
                .bind(blob(claim.fingerprint.as_bytes()))
                .bind(owner)
                .bind(self.instance.number())
                .bind(now)
                .bind(origin.trace_id().map(|id| blob(id.as_bytes())))
                .bind(origin.endpoint().to_owned())
                .bind(origin.label().map(str::to_owned)),
        };
        write.execute(connection).await?;
        Ok(Outcome::Claimed(Claimed::Fresh {
            fence: fence.unsigned_abs(),
            attempt: lapsed.map_or(1, |held| held.attempt.saturating_add(1)),
        }))
    }

    /// The fence of the next claim, which takes over from the fence `taken`.
    pub(super) fn next_fence(&mut self, taken: i64, now: i64) -> i64 {
        // A clock that was set back, or a file that was removed, does not bring back a fence.
        self.last_fence = self.last_fence.max(taken).saturating_add(1).max(now);
        self.last_fence
    }

    async fn forget_scope(
        &mut self,
        connection: &mut SqliteConnection,
        scope: ScopeId,
    ) -> Result<Outcome, Failed> {
        let range = |statement| {
            query(statement)
                .bind(blob(RecordId::from_halves(scope, [0; 16]).as_bytes()))
                .bind(blob(RecordId::from_halves(scope, [0xff; 16]).as_bytes()))
                .bind(BATCH)
        };
        let count = range(&self.statements.count_scope).bind(now());
        let live = number(&count.fetch_one(&mut *connection).await?, 0)?;
        let removed = range(&self.statements.forget_scope).execute(connection);
        let rows = removed.await?.rows_affected();
        Ok(Outcome::Removed { rows, live })
    }

    async fn sweep(&mut self, connection: &mut SqliteConnection) -> Result<Outcome, Failed> {
        let now = now();
        let sweep = query(&self.statements.sweep)
            .bind(now)
            .bind(now.saturating_sub(micros(LONGEST_EXTENSION)))
            .bind(BATCH);
        let rows = sweep.execute(connection).await?.rows_affected();
        Ok(Outcome::Removed { rows, live: 0 })
    }
}

impl Outcome {
    pub(super) fn claimed(self) -> Claimed {
        match self {
            Self::Claimed(claimed) => claimed,
            other => unreachable!("a claim got {other:?}"),
        }
    }

    pub(super) fn took_effect(self) -> bool {
        matches!(self, Self::Done(true))
    }

    pub(super) fn settled(self) -> Settled {
        if self.took_effect() {
            Settled::Done
        } else {
            Settled::Lost
        }
    }

    /// How many rows were removed, and how many of them had not expired.
    pub(super) fn removed(self) -> (u64, u64) {
        match self {
            Self::Removed { rows, live } => (rows, live),
            _ => (0, 0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn jobs_are_cut_into_pieces_with_a_statement() {
        let jobs: Vec<_> = (0..151).collect();
        let pieces: Vec<_> = chunks(&jobs)
            .map(|(from, jobs)| (from, jobs.len()))
            .collect();
        assert_eq!(
            pieces,
            [
                (0, 64),
                (64, 64),
                (128, 16),
                (144, 4),
                (148, 1),
                (149, 1),
                (150, 1)
            ]
        );
        let again: Vec<_> = chunks(&jobs).flat_map(|(_, jobs)| jobs).copied().collect();
        assert_eq!(again, jobs);
        assert_eq!(chunks(&[(); 0]).count(), 0);
    }
}

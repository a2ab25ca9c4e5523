//! New claims and completions of a group: one statement decides and writes many of them.
//!
//! Most callers of a busy store claim a new key or complete their own claim. Such a transition is one row of a
//! statement. Alone, it would need two statements, and each would wait for the thread of the connection. The statement
//! skips a row that needs another decision. `transition.rs` decides each skipped row alone.

use sqlx::sqlite::SqliteConnection;

use super::clock::{micros, now};
use super::row::column;
use super::transition::{Failed, Outcome, Shared, Transition, blob, chunks, query};
use crate::store::{Claim, Claimed, Holder, Record};

/// The outcomes of a group, in the order of its transitions. `None` is not decided yet.
pub(super) type Outcomes = Vec<Option<Outcome>>;

impl Shared<'_> {
    /// Inserts the claims whose ids have no row.
    pub(super) async fn insert_claims(
        &mut self,
        connection: &mut SqliteConnection,
        transitions: &[Transition],
        outcomes: &mut Outcomes,
    ) -> Result<(), Failed> {
        let claims = transitions.iter().enumerate();
        let mut claims: Vec<(usize, &Claim)> = claims
            .filter_map(|(at, transition)| match transition {
                Transition::Claim(claim) => Some((at, &**claim)),
                _ => None,
            })
            .collect();
        if let Some(room) = &self.room {
            // The others are decided alone, because only a new claim needs room.
            claims.truncate(room.claims_left());
        }
        for (_, claims) in chunks(&claims) {
            let mut insert = query(self.statements.inserts.of(claims.len()));
            let mut fences = Vec::with_capacity(claims.len());
            let last_fence = self.last_fence;
            for (_, claim) in claims {
                let now = now();
                let leased_until = now.saturating_add(micros(claim.lease));
                let retention = micros(claim.retention);
                let fence = self.next_fence(0, now);
                let origin = &claim.origin;
                fences.push(fence);
                insert = insert
                    .bind(blob(claim.id.as_bytes()))
                    .bind(fence)
                    .bind(leased_until)
                    .bind(leased_until.saturating_add(retention))
                    .bind(retention)
                    .bind(blob(claim.fingerprint.as_bytes()))
                    .bind(blob(claim.owner.as_bytes()))
                    .bind(self.instance.number())
                    .bind(now)
                    .bind(origin.trace_id().map(|id| blob(id.as_bytes())))
                    .bind(origin.endpoint().to_owned())
                    .bind(origin.label().map(str::to_owned));
            }
            // A claim that lost does not use its fence. So a group in which all claims lose writes nothing.
            self.last_fence = last_fence;
            for row in insert.fetch_all(&mut *connection).await? {
                let inserted: i64 = column(&row, 0)?;
                self.last_fence = self.last_fence.max(inserted);
                let claim = fences.iter().position(|fence| *fence == inserted);
                let Some((at, _)) = claim.and_then(|claim| claims.get(claim)) else {
                    continue;
                };
                if let Some(room) = &mut self.room {
                    room.reserve();
                }
                outcomes[*at] = Some(Outcome::Claimed(Claimed::Fresh {
                    fence: inserted.unsigned_abs(),
                    attempt: 1,
                }));
            }
        }
        Ok(())
    }

    /// Stores the records of the holders that hold their claims.
    pub(super) async fn complete_claims(
        &mut self,
        connection: &mut SqliteConnection,
        transitions: &[Transition],
        outcomes: &mut Outcomes,
    ) -> Result<(), Failed> {
        let mut completions: Vec<(usize, &Holder, &Record, i64)> = Vec::new();
        for (at, transition) in transitions.iter().enumerate() {
            if let Transition::Complete(holder, record, ttl) = transition {
                completions.push((at, holder, record, micros(*ttl)));
            }
        }
        // Of two completions of one claim, only the first is done.
        completions.sort_by_key(|(_, holder, ..)| *holder.id.as_bytes());
        completions.dedup_by_key(|(_, holder, ..)| holder.id);
        for (_, completions) in chunks(&completions) {
            let mut update = query(self.statements.updates.of(completions.len()));
            let now = now();
            for (_, holder, record, ttl) in completions {
                update = update
                    .bind(blob(holder.id.as_bytes()))
                    .bind(blob(holder.owner.as_bytes()))
                    // No claim has a negative fence.
                    .bind(i64::try_from(holder.fence).unwrap_or(-1))
                    .bind(blob(record.as_bytes()))
                    .bind(now.saturating_add(*ttl));
            }
            let update = update.bind(now).bind(now);
            for row in update.fetch_all(&mut *connection).await? {
                let id: &[u8] = column(&row, 0)?;
                let done = completions
                    .iter()
                    .find(|(_, holder, ..)| holder.id.as_bytes() == id);
                if let Some((at, ..)) = done {
                    outcomes[*at] = Some(Outcome::Done(true));
                    self.end_reservations(1);
                }
            }
        }
        Ok(())
    }
}

//! Room below `max_bytes` for the responses of claims.
//!
//! A claim reserves room until it is settled or given up. The count of these claims reads every row without a record.
//! Unknown outcomes are such rows too: they reserve nothing and stay for a long time. So the writer keeps the count
//! between its transactions, and its transitions of single claims adjust it. A sweep, `forget_scope` and a claim that replaces
//! an expired claim leave the count too high until the next count.

use std::time::{Duration, Instant};

use sqlx::sqlite::SqliteConnection;
use sqlx::{AssertSqlSafe, Row};

use super::clock::now;
use super::table::Statements;

/// How much room a claim reserves for its response, below `max_bytes`.
pub(super) const RESERVED: u64 = 16 * 1024;

/// A count that takes less time is repeated in each transaction, so it includes the claims of other processes. Counting
/// about 1,000 rows takes this long.
const FAST: Duration = Duration::from_micros(250);

/// After a slower count, the writer waits for this many times its duration before it counts again.
const PAUSE: u32 = 32;

/// How many claims reserve room.
#[derive(Debug, Default)]
pub(super) struct Reservations {
    claims: u64,
    last_count: Option<LastCount>,
}

#[derive(Clone, Copy, Debug)]
struct LastCount {
    ended_at: Instant,
    took: Duration,
}

impl LastCount {
    fn is_fast(&self) -> bool {
        self.took < FAST
    }

    /// Whether to count again before a transaction that begins now.
    fn is_due_before(&self, now: Instant) -> bool {
        let since = now.saturating_duration_since(self.ended_at);
        !self.is_fast() && since >= self.took.saturating_mul(PAUSE)
    }
}

impl Reservations {
    /// Counts before a transaction begins when the count is slow. So no other connection waits for the count.
    pub(super) async fn count_before(
        &mut self,
        connection: &mut SqliteConnection,
        statements: &Statements,
    ) -> Result<(), sqlx::Error> {
        if self
            .last_count
            .is_none_or(|last| last.is_due_before(Instant::now()))
        {
            self.count(connection, statements).await?;
        }
        Ok(())
    }

    /// Counts inside a transaction when the count is fast.
    pub(super) async fn count_within(
        &mut self,
        connection: &mut SqliteConnection,
        statements: &Statements,
    ) -> Result<(), sqlx::Error> {
        if self.last_count.is_some_and(|last| last.is_fast()) {
            self.count(connection, statements).await?;
        }
        Ok(())
    }

    async fn count(
        &mut self,
        connection: &mut SqliteConnection,
        statements: &Statements,
    ) -> Result<(), sqlx::Error> {
        let began = Instant::now();
        let count = sqlx::query(AssertSqlSafe(statements.count_claims.clone())).bind(now());
        let claims: i64 = count.fetch_one(connection).await?.try_get(0)?;
        self.claims = claims.unsigned_abs();
        self.last_count = Some(LastCount {
            ended_at: Instant::now(),
            took: began.elapsed(),
        });
        Ok(())
    }

    /// The room for a transaction, while the data of the file uses `used` bytes.
    pub(super) fn room(&self, used: u64, max_bytes: u64) -> Room {
        let taken = used.saturating_add(self.claims.saturating_mul(RESERVED));
        Room {
            taken,
            left: max_bytes.saturating_sub(taken),
            claims: self.claims,
        }
    }

    /// Keeps the count that a committed transaction leaves.
    pub(super) fn keep(&mut self, room: &Room) {
        self.claims = room.claims;
    }

    /// Forces a count before the next transaction. After an error, the last transaction may or may not have taken effect.
    pub(super) fn forget(&mut self) {
        self.last_count = None;
    }
}

/// The room of one transaction.
#[derive(Debug)]
pub(super) struct Room {
    /// How many bytes are in use or reserved at the start of the transaction.
    pub(super) taken: u64,
    left: u64,
    claims: u64,
}

impl Room {
    /// How many more claims have room.
    pub(super) fn claims_left(&self) -> usize {
        usize::try_from(self.left / RESERVED).unwrap_or(usize::MAX)
    }

    /// Reserves room for a claim. Returns `false` when there is none.
    pub(super) fn reserve(&mut self) -> bool {
        let Some(left) = self.left.checked_sub(RESERVED) else {
            return false;
        };
        self.left = left;
        self.claims += 1;
        true
    }

    /// Ends the reservations of some claims. Their room is free in the next transaction, which knows the size of their
    /// records.
    pub(super) fn end(&mut self, claims: u64) {
        self.claims = self.claims.saturating_sub(claims);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    impl Reservations {
        pub(in super::super) fn claims(&self) -> u64 {
            self.claims
        }

        /// Keeps the count for days.
        pub(in super::super) fn pretend_a_slow_count(&mut self) {
            self.last_count = Some(LastCount {
                ended_at: Instant::now(),
                took: Duration::from_secs(24 * 60 * 60),
            });
        }
    }

    #[test]
    fn a_slow_count_takes_a_small_part_of_the_time() {
        let ended_at = Instant::now();
        let count = |took| LastCount { ended_at, took };
        let slow = count(Duration::from_millis(27));
        assert!(!slow.is_fast());
        assert!(!slow.is_due_before(ended_at + Duration::from_millis(27 * 32 - 1)));
        assert!(slow.is_due_before(ended_at + Duration::from_millis(27 * 32)));
        let fast = count(Duration::from_micros(200));
        assert!(fast.is_fast());
        assert!(!fast.is_due_before(ended_at + Duration::from_secs(60)));
    }
}

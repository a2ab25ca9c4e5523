//! The contract suite: checks one store against the rules of the [`Store`] trait.

use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use super::handles::Handles;
use super::rules::{self, Damage};
use super::subject::{Pause, Subject};
use super::violation::Violation;
use crate::request::record_id::RecordId;
use crate::store::Store;

/// Checks one store against the rules of the [`Store`] trait.
///
/// The suite checks only a part of rule 5: it cannot fill a store, so it checks only that a store
/// with room accepts claims.
#[must_use = "does nothing until `check` or `assert` is called"]
pub struct Contract {
    handles: Handles,
    tick: Duration,
    rounds: usize,
    pause: Box<Pause>,
    damage: Option<Box<Damage>>,
}

impl Contract {
    /// Checks `store`.
    pub fn of(store: impl Store) -> Self {
        Self::with(Handles::one(Arc::new(store)))
    }

    /// Checks one store through two handles, as two processes would use it.
    ///
    /// Every rule must hold whichever handle a transition uses. A
    /// [`NearCache`](crate::store::NearCache) in each process does not keep rule 10 across
    /// processes: another process replays a forgotten record for up to its `max_age`. Check the
    /// backing store of such caches with two handles, and a cache with one handle.
    pub fn of_two(first: impl Store, second: impl Store) -> Self {
        Self::with(Handles::two(Arc::new(first), Arc::new(second)))
    }

    fn with(handles: Handles) -> Self {
        Self {
            handles,
            tick: Duration::from_millis(250),
            rounds: 50,
            pause: Box::new(|time| Box::pin(tokio::time::sleep(time))),
            damage: None,
        }
    }

    /// Sets the shortest lease and `ttl` that the suite uses; 250 ms by default. A transition should
    /// take less than a quarter of a tick. The suite waits for about twenty ticks in total.
    pub fn tick(mut self, tick: Duration) -> Self {
        self.tick = tick;
        self
    }

    /// Sets the number of rounds of each kind of race; 50 by default. A round has one race of 64 tasks
    /// and 40 races of two threads. The tasks run on the runtime, so they race only when the
    /// runtime has several threads. On a slow store, the races of two threads end early.
    pub fn rounds(mut self, rounds: usize) -> Self {
        self.rounds = rounds;
        self
    }

    /// Sets how the suite waits, for a store whose clock is not that of [`tokio::time::sleep`]. `pause` must
    /// return when the store's clock and the clock of tokio have both advanced by the given duration.
    pub fn pause_with<F, Fut>(mut self, pause: F) -> Self
    where
        F: Fn(Duration) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = ()> + Send + 'static,
    {
        self.pause = Box::new(move |time| Box::pin(pause(time)));
        self
    }

    /// Sets a function that makes an entry unreadable, as another version of the library or a bad disk would.
    /// Without this function, rule 6 is not checked.
    pub fn damage_with<F, Fut>(mut self, damage: F) -> Self
    where
        F: Fn(RecordId) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = ()> + Send + 'static,
    {
        self.damage = Some(Box::new(move |id| Box::pin(damage(id))));
        self
    }

    /// Checks every rule, and reports the first rule that the store breaks.
    ///
    /// # Errors
    ///
    /// The first [`Violation`]. An error or a panic of the store counts as a violation of the rule
    /// that is being checked.
    pub async fn check(self) -> Result<(), Violation> {
        let subject = Subject::new(&self.handles, self.tick, self.pause.into());
        rules::run(&subject, &self.handles, self.rounds, self.damage.as_deref()).await
    }

    /// Checks every rule.
    ///
    /// # Panics
    ///
    /// When the store breaks a rule. The message names the rule.
    pub async fn assert(self) {
        if let Err(violation) = self.check().await {
            panic!("{violation}");
        }
    }
}

impl fmt::Debug for Contract {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Contract")
            .field("tick", &self.tick)
            .field("rounds", &self.rounds)
            .finish_non_exhaustive()
    }
}

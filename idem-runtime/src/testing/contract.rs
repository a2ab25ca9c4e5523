//! The contract suite: the rules of the [`Store`] trait, run against one store.

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

/// The rules of the [`Store`] trait, to be run against one store.
///
/// Rule 5 is looked at only in so far as a store that has room says so; how a store is filled is its
/// own.
#[must_use = "a contract that is not checked says nothing"]
pub struct Contract {
    handles: Handles,
    tick: Duration,
    rounds: usize,
    pause: Box<Pause>,
    damage: Option<Box<Damage>>,
}

impl Contract {
    /// The contract of `store`.
    pub fn of(store: impl Store) -> Self {
        Self::with(Handles::one(Arc::new(store)))
    }

    /// The contract of one store by two handles of it, as two processes have them.
    ///
    /// Every rule has to hold whichever handle a transition goes through. A
    /// [`NearCache`](crate::store::NearCache) in each process does not keep rule 10 across processes:
    /// another process replays a forgotten record for up to its `max_age`. Check the store behind
    /// the caches with two handles, and a cache with one.
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

    /// The shortest lease and `ttl` that the suite asks for; 250 ms by default. A transition should
    /// take less than a quarter of it. All the waiting together takes about twenty ticks.
    pub fn tick(mut self, tick: Duration) -> Self {
        self.tick = tick;
        self
    }

    /// How many rounds each kind of race has; 50 by default. A round is a race of 64 tasks, which are
    /// tasks of the runtime and race only when it has several threads, and 40 races of two threads of
    /// their own. The races of two threads stop early on a store that is slow.
    pub fn rounds(mut self, rounds: usize) -> Self {
        self.rounds = rounds;
        self
    }

    /// How the store's time passes, where it is not [`tokio::time::sleep`]'s: `pause` returns when
    /// the store's clock has moved by the given duration, and the clock of tokio with it.
    pub fn pause_with<F, Fut>(mut self, pause: F) -> Self
    where
        F: Fn(Duration) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = ()> + Send + 'static,
    {
        self.pause = Box::new(move |time| Box::pin(pause(time)));
        self
    }

    /// How to make what stands under an id unreadable, as by another version of the library or a bad
    /// disk. Without it, rule 6 is not looked at.
    pub fn damage_with<F, Fut>(mut self, damage: F) -> Self
    where
        F: Fn(RecordId) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = ()> + Send + 'static,
    {
        self.damage = Some(Box::new(move |id| Box::pin(damage(id))));
        self
    }

    /// Runs every rule, and says which one the store breaks first.
    ///
    /// # Errors
    ///
    /// The first [`Violation`]. An error or a panic of the store violates the rule that was looked at.
    pub async fn check(self) -> Result<(), Violation> {
        let subject = Subject::new(&self.handles, self.tick, self.pause.into());
        rules::run(&subject, &self.handles, self.rounds, self.damage.as_deref()).await
    }

    /// Runs every rule.
    ///
    /// # Panics
    ///
    /// With the rule that the store breaks.
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

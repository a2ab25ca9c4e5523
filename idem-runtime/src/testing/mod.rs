//! For tests: the rules of the [`Store`] trait as a suite that any store can be put through, and a
//! [`FaultStore`] that fails as it is told.
//!
//! ```
//! use std::time::Duration;
//! use idem_runtime::store::MemoryStore;
//! use idem_runtime::testing::Contract;
//!
//! # #[tokio::main(flavor = "current_thread", start_paused = true)]
//! # async fn main() {
//! Contract::of(MemoryStore::default()).assert().await;
//! # }
//! ```
//!
//! A store that several processes share has more to keep: a lock, a counter or a cache of one process
//! means nothing to another. [`Contract::of_two`] takes two handles of one store, each made as a
//! process makes its own, such as two connections to one server:
//!
//! ```
//! # use std::time::Duration;
//! # use idem_runtime::store::MemoryStore;
//! # use idem_runtime::testing::Contract;
//! # #[tokio::main(flavor = "current_thread", start_paused = true)]
//! # async fn main() {
//! let store = MemoryStore::default();
//! Contract::of_two(store.clone(), store).assert().await;
//! # }
//! ```
//!
//! The suite makes record ids of its own and never looks at others, so that it can run on a store
//! that is in use. What it leaves behind expires within two hours.
//!
//! # What the suite cannot see
//!
//! - What a store forgets in a crash, a restart or a failover. Test it with the engine's own means.
//! - A full store (rule 5): only the store knows how to fill it.
//! - A race that is lost less than once in some thousand pairs of claims. The suite starts each pair
//!   from two threads within a microsecond, which finds most gaps between a look and a write, also
//!   short ones; it cannot prove that there is none.
//! - Deadlines that are wrong by less than 2 milliseconds, because a store may keep whole
//!   milliseconds. With a paused clock, a test of the store's own can look closer.
//! - More than two processes, and clocks that differ between them.

mod fault_mix;
mod fault_store;
mod handles;
mod rules;
mod subject;

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

pub use self::fault_mix::FaultMix;
pub use self::fault_store::{Fault, FaultStore, Operation};
use self::handles::Handles;
use self::subject::Subject;
use crate::request::record_id::RecordId;
use crate::store::Store;

type Pause = dyn Fn(Duration) -> Pin<Box<dyn Future<Output = ()> + Send>> + Send + Sync;
type Damage = dyn Fn(RecordId) -> Pin<Box<dyn Future<Output = ()> + Send>> + Send + Sync;

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

/// A rule that a store breaks.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the store breaks rule {rule} of `Store`: {what}")]
pub struct Violation {
    rule: u8,
    what: String,
}

impl Violation {
    /// The number of the rule in the docs of [`Store`].
    #[must_use]
    pub fn rule(&self) -> u8 {
        self.rule
    }
}

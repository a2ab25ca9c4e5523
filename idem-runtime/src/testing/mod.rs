//! For tests: a suite that runs the rules of the [`Store`](crate::store::Store) trait against any store,
//! and a store with injected faults, [`FaultStore`].
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

mod contract;
mod fault;
mod fault_mix;
mod fault_store;
mod handles;
mod rules;
mod subject;
mod violation;

pub use self::contract::Contract;
pub use self::fault::{Fault, Operation};
pub use self::fault_mix::FaultMix;
pub use self::fault_store::FaultStore;
pub use self::violation::Violation;

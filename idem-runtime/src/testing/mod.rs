//! Test tools: [`Contract`], a suite that checks any store against the rules of the
//! [`Store`](crate::store::Store) trait, [`FaultStore`], a store with injected faults, and [`returned_by`],
//! which calls an annotated handler and returns the value that it declares.
//!
//! ```
//! # extern crate idem_runtime as axum_idem;
//! use axum_idem::store::MemoryStore;
//! use axum_idem::testing::Contract;
//!
//! # #[tokio::main(flavor = "current_thread", start_paused = true)]
//! # async fn main() {
//! Contract::of(MemoryStore::default()).assert().await;
//! # }
//! ```
//!
//! A store that several processes share needs a further check, because one process does not see the
//! locks, counters and caches of another. [`Contract::of_two`] takes two handles of one store.
//! Create each handle as a process would create its own, for example with its own connection to the
//! server:
//!
//! ```
//! # extern crate idem_runtime as axum_idem;
//! # use std::time::Duration;
//! # use axum_idem::store::MemoryStore;
//! # use axum_idem::testing::Contract;
//! # #[tokio::main(flavor = "current_thread", start_paused = true)]
//! # async fn main() {
//! let store = MemoryStore::default();
//! Contract::of_two(store.clone(), store).assert().await;
//! # }
//! ```
//!
//! The suite uses its own record ids and never reads others, so it can run on a store that is in
//! use. Everything it leaves behind expires within two hours.
//!
//! # What the suite cannot check
//!
//! - Data that a store loses in a crash, a restart or a failover. Test this with the tools of the
//!   engine.
//! - A full store (rule 5), because only the store knows how to fill it.
//! - A race that is lost less than once in some thousand pairs of claims. The suite starts each
//!   pair from two threads within a microsecond. This finds most gaps between a read and a write,
//!   even short ones, but cannot prove that there is no gap.
//! - Deadlines that are wrong by less than 2 milliseconds, because a store may store whole
//!   milliseconds. The store's own tests can check more precisely with a paused clock.
//! - More than two processes, and clocks that differ between processes.

mod contract;
mod fault;
mod fault_mix;
mod fault_store;
mod handles;
mod returned;
mod rules;
mod subject;
mod violation;

pub use self::contract::Contract;
pub use self::fault::Fault;
pub use self::fault_mix::FaultMix;
pub use self::fault_store::FaultStore;
pub use self::returned::{LastArgument, returned_by};
pub use self::violation::Violation;
pub use crate::observe::Operation;

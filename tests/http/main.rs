//! Tests whole requests over real sockets.

mod answers;
mod background;
mod batches;
mod bodies;
mod capacity;
mod disconnects;
mod in_flight;
mod keys;
mod last_argument;
mod layers;
mod leases;
mod listing;
mod operators;
mod outcomes;
mod retries;
mod scopes;
#[cfg(feature = "testing")]
mod store_faults;
mod traces;

use test_support::http as support;

//! Tests whole requests over real sockets.

mod background;
mod batches;
mod between;
mod bodies;
mod capacity;
mod disconnects;
mod in_flight;
mod keys;
mod last_argument;
mod layers;
mod leases;
mod listing;
#[cfg(feature = "testing")]
mod max_run;
#[cfg(feature = "testing")]
mod max_running;
mod numbers;
mod operators;
mod outcomes;
mod own_key;
mod rate_limits;
mod receipts;
mod responses;
mod retries;
mod scopes;
#[cfg(feature = "seal")]
mod sealed;
mod status;
#[cfg(feature = "testing")]
mod store_faults;
mod streams;
mod traces;
mod unknown;
mod uploads;
#[cfg(feature = "testing")]
mod user_tests;
mod wait_timeouts;

use test_support::http as support;

//! Checks that concurrent histories of every store are linearizable, by the rules of the `Store`
//! trait.
//!
//! A failure reports its seed, and `IDEM_SEED` runs only that seed. `IDEM_TRANSITIONS` makes a run
//! longer:
//!
//! ```sh
//! IDEM_TRANSITIONS=1000000 cargo test -p idem-runtime --release --all-features --test linear -- --nocapture
//! ```
#![cfg(feature = "testing")]

mod checker;
mod history;
mod model;
mod stores;
mod wrong;

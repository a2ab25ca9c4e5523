//! Concurrent histories of every store can be told as a sequence of the transitions that the `Store`
//! trait describes.
//!
//! A failure names its seed; `IDEM_SEED` runs that one alone. `IDEM_TRANSITIONS` makes a run longer:
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

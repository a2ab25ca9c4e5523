//! Servers, clients and stores that the tests and benches of this workspace share.
//!
//! Nothing here is published. A helper panics when it fails, because its caller is a test.
#![allow(
    missing_docs,
    missing_debug_implementations,
    clippy::missing_errors_doc,
    clippy::missing_panics_doc,
    clippy::must_use_candidate,
    reason = "this crate is only used by the tests of this workspace"
)]

pub mod http;
pub mod listing;
// Starts servers as Unix processes and sends them signals.
#[cfg(unix)]
pub mod servers;
pub mod transitions;
pub mod wrong;

//! The claim phase decides whether a request runs its handler, gets a replay, or is refused.
//!
//! `decision.rs` is the pure decision table. Nothing here runs a handler or creates an attempt: a
//! claim that was granted is returned as `Won`.

pub(crate) mod ask;
pub(crate) mod claiming;
pub(crate) mod decision;
pub(crate) mod unprotected;

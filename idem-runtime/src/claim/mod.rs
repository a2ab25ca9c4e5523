//! The claim phase: who runs the handler, who gets a replay, and who is refused.
//!
//! `decision.rs` is the pure table. Nothing here runs a handler or makes an attempt: a claim that is won
//! is returned as `Won`.

pub(crate) mod ask;
pub(crate) mod claiming;
pub(crate) mod decision;
pub(crate) mod unprotected;

//! Runs the handler under a claim until it finishes, renews its lease, and settles the attempt.
//!
//! This folder does not know how the claim was decided.

pub(crate) mod commit;
pub(crate) mod commit_error;
pub(crate) mod commits;
pub(crate) mod ending;
pub(crate) mod handle;
pub(crate) mod handling;
pub(crate) mod heartbeat;
mod observed;
pub(crate) mod orphans;
pub(crate) mod overtaken;
mod renewal;
mod responded;
pub(crate) mod running;
pub(crate) mod settle;
pub(crate) mod settlement;
pub(crate) mod waiting;
pub(crate) mod watched;
mod work;

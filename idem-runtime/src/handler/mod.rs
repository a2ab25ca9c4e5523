//! What generated code calls: takes a request in, reads its scope, and runs its handler.
//!
//! The only folder that knows the type of the handler and of its arguments. What is the same for all
//! handlers belongs into the folders below, where it is compiled once.

pub(crate) mod admission;
pub(crate) mod deferred;
pub(crate) mod headed;
pub(crate) mod key;
pub(crate) mod protection;
pub(crate) mod run;

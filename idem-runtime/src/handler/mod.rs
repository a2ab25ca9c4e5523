//! The functions that generated code calls. They take a request, read its scope, and run its
//! handler.
//!
//! Only this folder is generic over the handler and its arguments. Code that is the same for all
//! handlers belongs in the folders below, where it is compiled once.

pub(crate) mod admission;
pub(crate) mod deferred;
pub(crate) mod guarded;
pub(crate) mod headed;
pub(crate) mod key;
pub(crate) mod own_key;
pub(crate) mod protection;
pub(crate) mod run;

//! The functions that generated code calls. They take a request, read its scope, and run its
//! handler.
//!
//! Only this folder is generic over the handler and its arguments, and generic code is compiled again for each
//! handler. So the states of a request are in `guarded`, which is not generic, and everything else is in the folders below.

pub(crate) mod admission;
pub(crate) mod deferred;
pub(crate) mod guarded;
pub(crate) mod headed;
pub(crate) mod key;
pub(crate) mod own_key;
pub(crate) mod protection;
pub(crate) mod run;

//! TODO

pub(crate) mod admission;
pub(crate) mod deferred;
pub(crate) mod guarded;
pub(crate) mod protection;
pub(crate) mod run;

//! TODO

pub(crate) mod background;
pub(crate) mod handle;
pub(crate) mod heartbeat;
pub(crate) mod orphans;
pub(crate) mod running;
pub(crate) mod settle;

//! Plain data: what one endpoint asks, and how one service speaks.

pub(crate) mod dialect;
pub(crate) mod policy;

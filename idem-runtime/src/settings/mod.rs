//! Plain data: the settings of one endpoint, and the wire format of one service.

pub(crate) mod dialect;
pub(crate) mod policy;

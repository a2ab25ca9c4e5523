//! Creates the responses to the client: problems, replays, and the recorded part of a response.
//!
//! Only `problem/` maps a refusal to an HTTP status.

pub(crate) mod collect;
pub(crate) mod degraded;
pub(crate) mod do_not_record;
pub(crate) mod kept_headers;
pub(crate) mod key_status;
pub(crate) mod outcome_unknown;
pub(crate) mod problem;
pub(crate) mod receipt;
pub(crate) mod recordable;
pub(crate) mod recording;
pub(crate) mod replay;

//! TODO

pub(crate) mod body;
pub(crate) mod canonical_json;
pub(crate) mod digest;
pub(crate) mod fingerprint;
pub(crate) mod key;
pub(crate) mod record_id;
pub(crate) mod scope;

//! Identifies the record of a request, and compares the request with the first request.
//!
//! Pure code that knows neither the service nor its store.

pub(crate) mod body;
pub(crate) mod canonical_json;
pub(crate) mod chosen_key;
pub(crate) mod digest;
pub(crate) mod digest_hasher;
pub(crate) mod fingerprint;
pub(crate) mod headers;
pub(crate) mod hex;
pub(crate) mod id_secret;
pub(crate) mod intake;
pub(crate) mod key;
pub(crate) mod namespace;
pub(crate) mod own_key;
pub(crate) mod record_id;
pub(crate) mod scope;
pub(crate) mod scope_id;
pub(crate) mod trace_context;

//! What takes bytes from strangers, and what must hold whatever they are.
//!
//! Each target is a plain function that panics where something does not hold. cargo-fuzz drives it,
//! and so do the tests of this crate, with the seeds and their mutations.

mod attribute;
#[path = "../../idem-runtime/src/request/canonical_json.rs"]
mod canonical_json;
mod json;
mod key;
mod record;
#[cfg(test)]
mod tests;

pub use attribute::attribute;
pub use json::json;
pub use key::key;
pub use record::record;

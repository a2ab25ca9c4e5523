//! Documents annotated operations in OpenAPI: the key header, the replay header and the problems.
//!
//! `facts.rs` contains what the attribute knows about an endpoint, and `operation.rs` what follows for one operation
//! of a service. The other files write this into the document of one library.

pub(crate) mod facts;
mod operation;
pub(crate) mod utoipa;

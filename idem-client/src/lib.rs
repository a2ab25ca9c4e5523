#![doc = include_str!("../README.md")]
#![cfg_attr(docsrs, feature(doc_cfg))]
#![cfg_attr(
    not(any(feature = "reqwest-middleware", feature = "tower")),
    allow(
        dead_code,
        reason = "without a client, only the names and the problem are used"
    )
)]

#[cfg(feature = "reqwest-middleware")]
mod client;
pub mod codes;
mod exchange;
mod failure;
pub mod headers;
mod key;
#[cfg(feature = "tower")]
mod layer;
mod policy;
mod problem;
mod retry_after;
mod schedule;
mod verdict;

#[cfg(feature = "reqwest-middleware")]
pub use client::builder::{ClientBuilder, client};
pub use exchange::ResponseExt;
pub use failure::{Failure, Reason};
pub use key::{KeyFuture, KeyStore, Operation};
#[cfg(feature = "tower")]
pub use layer::{ReplyBody, RetryLayer, RetryService};
pub use policy::Policy;
pub use problem::Problem;

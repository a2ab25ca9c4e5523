//! The attribute on every shape of handler that axum takes, each on a real router. `tests/editions` has
//! this program again, as a crate of each older edition that has `async fn`.
// What the expansion writes is the user's code to these lints.
#![deny(warnings, clippy::pedantic)]
#![allow(
    non_fmt_panics,
    reason = "in edition 2018 `assert!` takes its message as it is"
)]

mod arguments;
mod bodies;
mod editions;
mod generics;
mod neighbours;
mod options;
mod ownership;
mod returns;
mod scopes;
mod support;

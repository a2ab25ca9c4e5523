//! Tests the attribute on every shape of handler that axum accepts, each on a real router.
//! `tests/editions` compiles this program again in each older edition that has `async fn`.
// Lints treat the generated code like code of the user.
#![deny(warnings, clippy::pedantic)]
#![allow(
    non_fmt_panics,
    reason = "edition 2018 does not format the message of `assert!`"
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

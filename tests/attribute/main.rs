//! The attribute on every shape of handler that axum takes, each on a real router.
// What the expansion writes is the user's code to these lints.
#![deny(warnings, clippy::pedantic)]

mod arguments;
mod bodies;
mod generics;
mod neighbours;
mod options;
mod ownership;
mod returns;
mod scopes;
mod support;

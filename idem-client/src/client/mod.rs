//! The client on `reqwest` and `reqwest-middleware`.

pub(crate) mod builder;
mod middleware;
mod redirect;

//! The four services and the payment gateway, as their examples have them.
#![expect(dead_code, reason = "an example's `main` and what serves it")]

#[path = "../../examples/aleta.rs"]
pub(crate) mod aleta;
#[path = "../../examples/gateway.rs"]
pub(crate) mod gateway;
#[path = "../../examples/iex.rs"]
pub(crate) mod iex;
#[path = "../../examples/phantom.rs"]
pub(crate) mod phantom;
#[path = "../../examples/yoshi.rs"]
pub(crate) mod yoshi;

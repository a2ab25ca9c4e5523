//! The routers of the example services.
#![expect(dead_code, reason = "the tests do not call the `main` of an example")]

#[path = "../../examples/acp.rs"]
pub(crate) mod acp;
#[path = "../../examples/aleta.rs"]
pub(crate) mod aleta;
#[path = "../../examples/browser.rs"]
pub(crate) mod browser;
#[path = "../../examples/gateway.rs"]
pub(crate) mod gateway;
#[path = "../../examples/iex.rs"]
pub(crate) mod iex;
#[path = "../../examples/payments.rs"]
pub(crate) mod payments;
#[path = "../../examples/phantom.rs"]
pub(crate) mod phantom;
#[path = "../../examples/quickstart.rs"]
pub(crate) mod quickstart;
#[path = "../../examples/trades.rs"]
pub(crate) mod trades;
#[path = "../../examples/ucp.rs"]
pub(crate) mod ucp;
#[path = "../../examples/webhooks.rs"]
pub(crate) mod webhooks;
#[path = "../../examples/yoshi.rs"]
pub(crate) mod yoshi;

//! A page for operators: unknown keys, keys in flight and records.
//!
//! [`router`] returns a router. Nest it behind the login of the service:
//!
//! ```
//! # extern crate idem_runtime as axum_idem;
//! use axum::Router;
//! use axum::http::request::Parts;
//! use axum_idem::Idempotency;
//! use axum_idem::console::{self, Access};
//!
//! /// The login of the service has put the operator into the extensions of the request.
//! #[derive(Clone)]
//! struct Operator {
//!     may_change: bool,
//! }
//!
//! fn access(parts: &Parts) -> Access {
//!     match parts.extensions.get::<Operator>() {
//!         Some(operator) if operator.may_change => Access::Full,
//!         Some(_) => Access::ReadOnly,
//!         None => Access::Denied,
//!     }
//! }
//!
//! let idem = Idempotency::in_memory();
//! let router: Router = Router::new().nest("/ops/idem", console::router(idem, access));
//! # let _ = router;
//! ```
//!
//! The console has no login of its own: `access` decides about each request. Put the layer of your login above
//! the nested router.
//!
//! Each list shows its first 100 records in the order of their ids, and "More" shows the next 100. Unknown keys and keys in
//! flight are shown oldest first, and records newest first.
//!
//! The page shows no key, no token and no scope, because the store has none. It shows the headers and the body of a
//! response only when the operator asks for them; [`Console::redact`] can remove parts of a body first, and the values of
//! `Set-Cookie` are always hidden.
//! Every URL of the page is relative, so the router can be nested anywhere, also behind a proxy that removes a
//! prefix. With `nest`, axum serves the page at `/ops/idem` only. With `nest_service`, the page is also at
//! `/ops/idem/`. The page loads nothing from other hosts and has a strict `Content-Security-Policy`.
//!
//! A change needs [`Access::Full`], the content type `application/json` and `Sec-Fetch-Site: same-origin`, so
//! another site cannot send it. A browser that sends `Sec-Fetch-Site: cross-site` or `same-site` gets no record either.
//!
//! Each change is an INFO event with its reason, even if the store failed and the change may have taken effect, or if the
//! client disconnected meanwhile. The event of a resolved key has the fence, the status, the `ttl` and the length of the body,
//! and the event of a forgotten record has the state that the page has shown. The console does not know who the operator is.
//! The event is in the span of the request, so let the layer of your login enter a span with a field for the operator.
//!
//! A decision applies to the attempt that the page shows. When a later attempt has run meanwhile, nothing changes, and the
//! page says so. `resolve` compares the fence in the store. For `forget`, the console reads the record again immediately
//! before it removes the record, so it does not notice an attempt in the milliseconds between.
//!
//! **`access` should read a credential**, such as the cookie of a login. A browser sends a cookie only to the host that has
//! set it. If `access` depends on the network alone, name the hosts of the console with [`Console::hosts`]. Without
//! them, any site that an operator visits could read and change records by DNS rebinding: the site points its own name at
//! the address of the console, so that the browser treats both as one origin.

mod access;
mod api;
mod assets;
mod audit;
mod change;
mod json;
mod refusal;
mod requests;
mod settings;

use axum::Router;
use axum::routing::any;
use http::request::Parts;

pub use self::access::Access;
use self::requests::handle;
pub use self::settings::Console;
use crate::service::idempotency::Idempotency;

/// Returns the console as a router. Nest it behind the login of the service. The [module](self) has an
/// example.
///
/// `access` decides about each request. It gets the head of the request, with the extensions that layers above
/// have added.
// The module has the same cfg. The attribute is repeated so that the facade's documentation shows
// it.
#[cfg(feature = "console")]
pub fn router<F>(idem: Idempotency, access: F) -> Router
where
    F: Fn(&Parts) -> Access + Send + Sync + 'static,
{
    Console::new(idem, access).router()
}

impl Console {
    /// Returns the console as a router.
    pub fn router(self) -> Router {
        let handler = any(handle);
        Router::new()
            .route("/", handler.clone())
            .route("/{*path}", handler)
            .with_state(self)
    }
}

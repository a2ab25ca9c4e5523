//! The `#[idempotent]` attribute of [axum-idem](https://docs.rs/axum-idem).
//!
//! Use it through `axum_idem::idempotent`: what it writes calls the runtime of that crate, at the
//! same version.

mod check;
mod expand;
mod messages;
mod parse;
#[cfg(test)]
mod tests;
mod transform;

use crate::transform::transform;

/// Makes an axum handler safe to retry.
///
/// A request that carries an idempotency key runs the handler once. A retry of it gets the recorded
/// answer, also when the client went away before the first answer was there. A request without a
/// key runs as it would without the attribute.
///
/// ```
/// use axum::Router;
/// use axum::extract::{Path, State};
/// use axum::http::StatusCode;
/// use axum::routing::post;
/// use axum_idem::{Idempotency, idempotent};
///
/// # #[derive(Clone)] struct TradingDesk;
/// # impl TradingDesk {
/// #     async fn place(&self, _: u64, order: String) -> Result<String, StatusCode> { Ok(order) }
/// # }
/// #[idempotent(ttl = "24h", scope = token)]
/// async fn place_trade(
///     State(desk): State<TradingDesk>,
///     Path(account): Path<u64>,
///     order: String,
/// ) -> Result<(StatusCode, String), StatusCode> {
///     let trade = desk.place(account, order).await?;
///     Ok((StatusCode::CREATED, trade))
/// }
///
/// let router: Router = Router::new()
///     .route("/accounts/{id}/trades", post(place_trade))
///     .with_state(TradingDesk)
///     .layer(Idempotency::in_memory());
/// ```
///
/// # Arguments
///
/// | argument | values | when it is left out |
/// |---|---|---|
/// | `scope` | whose key it is: `token`, `header("x-workspace-id")`, `global`, an expression over the handler's arguments whose value is `Display`, or a tuple of these | an error: there is no safe guess |
/// | `ttl` | how long an answer is kept: `"90s"`, `"15m"`, `"24h"`, `"1h30m"`, up to `"365d"` | `"24h"` |
/// | `required` | a flag: a request without a key is refused | it runs unprotected |
/// | `record` | which answers are kept: classes and codes such as `[2xx, 4xx, 503]`, or `all` | `2xx`, `3xx` and `4xx` without 401, 403, 408, 425 and 429 |
/// | `record_rejections` | a flag: an answer of the body extractor counts like one of the handler's | it gives the key back, for nothing ran |
/// | `in_flight` | what a duplicate gets meanwhile: `reject`, or `wait("5s")` for the first answer | `reject` |
/// | `on_unknown` | what follows a panic or a crash: `rerun`, or `hold` until an operator has looked | `rerun` |
/// | `fingerprint` | what of the body tells a retry from a reused key: `body`, `json`, `json("/amount", "/currency")`, or `none` | `body` |
/// | `transactional` | a flag: the effects of the handler are only those that it commits with `attempt.commit`; needs an `Attempt` argument and a store in the database of the handler | the store makes each claim durable before the handler runs |
/// | `runtime` | an expression over the handler's arguments that gives an `Idempotency` | that of the layer, else one for the process |
/// | `crate` | the path of this crate, where it has another name | `::axum_idem` |
///
/// # Scope
///
/// Two callers' equal keys never meet, because the scope is part of the record's name. Say who the
/// caller is by what an extractor has proved:
///
/// ```
/// # use axum::extract::FromRequestParts;
/// # use axum::http::{StatusCode, request::Parts};
/// # use axum_idem::idempotent;
/// # struct User { id: u64 }
/// # impl<S: Sync> FromRequestParts<S> for User {
/// #     type Rejection = StatusCode;
/// #     async fn from_request_parts(_: &mut Parts, _: &S) -> Result<Self, StatusCode> {
/// #         Ok(Self { id: 1 })
/// #     }
/// # }
/// #[idempotent(scope = user.id)]
/// async fn place_trade(user: User, order: String) -> String {
///     format!("{order} for {}", user.id)
/// }
///
/// #[idempotent(scope = (header("x-workspace-id"), id))]
/// async fn cancel_trade(User { id, .. }: User) -> StatusCode {
///     StatusCode::NO_CONTENT
/// }
/// ```
///
/// `token` is the value of `Authorization` as the client sent it. A scope made of a token that is
/// refreshed ends with the token: a retry with the new one runs again. `user.id` does not.
///
/// Names follow Rust's own scoping: where an argument of the handler is called `token`, `global` or
/// `header`, that argument is meant.
///
/// A scope has to name an argument, `token`, `header` or `global`: a constant alone would be the same
/// for every caller.
///
/// The last argument of a handler may read the body, and the body is read only after the key is
/// known to be new. A scope can therefore name the last argument only where it reads no body, such
/// as `Path`.
///
/// # The function
///
/// It stays an axum handler with the same number of arguments. Its last argument is wrapped, so
/// that a unit test calls it with `.into()` there; a handler without arguments gets one, and is
/// called with `().into()`:
///
/// ```
/// # use axum_idem::idempotent;
/// #[idempotent(scope = token)]
/// async fn echo(body: String) -> String {
///     body
/// }
///
/// # async fn test() {
/// let answer = echo("hello".to_owned().into()).await;
/// assert_eq!(answer.status(), 200);
/// # }
/// ```
///
/// It returns a `Response`. Type parameters also have to be
/// `Send + 'static`, and the body's future `Send`, since the handler runs on when its client is
/// gone.
///
/// Every argument lives until the handler ends, whatever its pattern: the permit of `_: Permit`,
/// too.
///
/// `#[debug_handler]`, `#[tracing::instrument]` and `#[utoipa::path]` stand above or below.
/// Those that need the declared answer stand above: `#[utoipa::path]`, `#[instrument(err)]`. On a
/// handler without arguments `#[debug_handler]` stands below.
///
/// # Errors of the compiler
///
/// What cannot work does not compile. All mistakes of one attribute are told together, each at its
/// own token, and `axum_idem::compile_errors` has an entry for every message. A function with
/// mistakes stays what it is without the attribute, so that the rest of the crate is checked too.
#[proc_macro_attribute]
pub fn idempotent(
    arguments: proc_macro::TokenStream,
    item: proc_macro::TokenStream,
) -> proc_macro::TokenStream {
    let (mut item, mistakes) = transform(arguments.into(), item.into());
    item.extend(mistakes.into_compile_errors());
    item.into()
}

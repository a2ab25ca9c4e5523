//! The `#[idempotent]` attribute of [axum-idem](https://docs.rs/axum-idem).
//!
//! Use the attribute through `axum_idem::idempotent`, because the generated code calls the runtime of
//! that crate, in the same version.

mod check;
mod expand;
mod messages;
mod parse;
#[cfg(test)]
mod tests;
mod transform;

use crate::parse::documenters::Documenters;
use crate::transform::transform;

/// Makes an axum handler safe to retry.
///
/// A request with an idempotency key runs the handler once. A retry gets the recorded response, even if
/// the client disconnected before the first response was sent. A request without a key runs as if the
/// handler had no attribute.
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
/// | argument | values | default |
/// |---|---|---|
/// | `scope` | the caller to which a key belongs: `token`, `header("x-workspace-id")`, `global`, an expression that uses the handler's arguments and whose value is `Display`, or a tuple of these | none: a missing scope is an error |
/// | `key` | the key of this endpoint, when it is not in the header of the service: `header("x-github-delivery")`, or an expression that uses the handler's arguments and whose value is `Display`, or an `Option` of one | the key header of the service |
/// | `ttl` | the time for which a response is recorded: `"90s"`, `"15m"`, `"24h"`, `"1h30m"`, up to `"365d"` | `"24h"` |
/// | `required` | a flag: a request without a key is rejected | the request runs without protection |
/// | `record` | which responses are recorded: classes and codes such as `[2xx, 4xx, 503]`, or `all` | `2xx`, `3xx` and `4xx` without 401, 403, 408, 425 and 429 |
/// | `record_rejections` | a flag: a rejection by the body extractor is recorded like a response of the handler | a rejection releases the key, because the handler did not run; `fingerprint = none` does not allow this flag |
/// | `record_body` | `none`: only the status and the headers are recorded, without `Content-*`, `ETag`, `Digest` and `Repr-Digest`; the body never reaches the store, and a replay has an empty body and carries `Idempotency-Receipt: true` | the whole body is recorded |
/// | `in_flight` | the response to a duplicate while the first request runs: `reject` refuses the duplicate, `wait("5s")` waits up to five seconds for the first response | `reject` |
/// | `on_unknown` | the behavior after a panic or a crash: with `rerun` a retry runs the handler again, with `hold` retries are refused until an operator resolves the key | `rerun` |
/// | `unknown` | which responses leave the outcome unknown: classes and codes such as `[502, 504]` | none |
/// | `max_run` | the time after which a running attempt is ended and its outcome is unknown: `"90s"`, `"15m"`, up to `"365d"` | the limit of the service, 15 minutes by default |
/// | `fingerprint` | which parts of the body distinguish a retry from a reused key: `body`, `json`, `json("/amount", "/currency")`, or `none` | `body` |
/// | `transactional` | a flag: the only effects of the handler are those that it commits with `attempt.commit`; needs an `Attempt` argument and a store in the database of the handler | the store makes each claim durable before the handler runs |
/// | `runtime` | an expression over the handler's arguments whose value is an `Idempotency` | the `Idempotency` of the layer |
/// | `crate` | the path of this crate, if the crate has another name | `::axum_idem` |
///
/// # Scope
///
/// Equal keys of two callers are independent, because the scope is part of the record's id. Identify the
/// caller by a value that an extractor has verified:
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
/// `token` is the raw value of the `Authorization` header. When a token is refreshed, the scope changes:
/// a retry with the new token runs the handler again. `user.id` stays the same.
///
/// Names follow the scoping rules of Rust. If an argument of the handler is named `token`, `global` or
/// `header`, the name means that argument.
///
/// A scope must use an argument, `token`, `header` or `global`. A constant alone would be the same for
/// every caller.
///
/// The last argument of a handler may read the body, and the body is extracted only after the key is
/// known to be new. So a scope can use the last argument only if that argument, such as a `Path`, does not read
/// the body.
///
/// # A key of the endpoint
///
/// A sender of webhooks has its own id for each delivery. With `key = …`, this id is the key:
///
/// ```
/// # use axum::extract::Path;
/// # use axum_idem::{IdempotencyKey, idempotent};
/// #[idempotent(scope = global, required, key = header("x-github-delivery"))]
/// async fn receive(key: IdempotencyKey, event: String) -> String {
///     format!("{event} in delivery {}", key.as_str())
/// }
///
/// #[idempotent(scope = global, key = format!("{hook}-{delivery}"))]
/// async fn receive_at(Path((hook, delivery)): Path<(u64, u64)>, event: String) -> String {
///     event
/// }
/// ```
///
/// Such an endpoint ignores the key header of the service. The rules of the dialect for the length and the
/// characters of a key apply, and so does its `key_rule`; quotes are never required. The value of an expression may
/// contain printable ASCII characters, and with `KeySyntax::Raw` all characters of a header value. A request with
/// another value is refused with 400.
///
/// If the value is `None` or the header is missing, the request has no key. An argument of the type `IdempotencyKey` or
/// `Option<IdempotencyKey>` is this key. The attribute recognizes the two types by these names. A handler with an
/// `IdempotencyKey` never runs without a key. A unit test passes such an argument with `.into()`.
///
/// The endpoint finds its `Idempotency` through a layer or through `runtime = …`. Without both, every write gets 500.
/// If middleware between the layer and the endpoint moves the request to another task, use `runtime = …`.
///
/// The record of the endpoint is written when the handler has responded, and not when the response leaves the layer. If
/// a layer commits the work of the handler, give the service a dialect with the header of the sender instead.
///
/// # The function
///
/// The function is still an axum handler with the same number of arguments. The attribute wraps the last
/// argument in `Deferred`, so a unit test passes that argument with `.into()`. A handler without arguments
/// gets one argument, and a unit test passes `().into()`:
///
/// ```
/// # use axum_idem::idempotent;
/// #[idempotent(scope = token)]
/// async fn echo(body: String) -> String {
///     body
/// }
///
/// # async fn test() {
/// let response = echo("hello".to_owned().into()).await;
/// assert_eq!(response.status(), 200);
/// # }
/// ```
///
/// The function returns a `Response`. Type parameters must also be `Send + 'static`, and the future of
/// the body must be `Send`, because the handler continues after its client has disconnected.
///
/// Every argument lives until the handler ends, even if its pattern binds nothing, such as `_: Permit`.
///
/// Other attributes, such as `#[debug_handler]`, `#[tracing::instrument]` and `#[utoipa::path]`, may be
/// above or below. Put an attribute above if it needs the declared types, such as `#[instrument(err)]`.
/// On a handler without arguments, put `#[debug_handler]` below. With the feature `aide`, an annotated handler
/// documents its declared types in `api_route`. With the feature `utoipa`, put
/// `#[utoipa::path]` below: then the operation documents its key, and `Idempotency::document` completes
/// the document. In this order, the macro of utoipa cannot infer the request body, so name it in `request_body`.
///
/// # Compile errors
///
/// Misuse does not compile. The compiler reports all mistakes of one attribute together, each at its own
/// token. `axum_idem::compile_errors` has an entry for every message. A function with mistakes is emitted
/// without the attribute, so that the compiler also checks the rest of the crate.
#[proc_macro_attribute]
pub fn idempotent(
    arguments: proc_macro::TokenStream,
    item: proc_macro::TokenStream,
) -> proc_macro::TokenStream {
    let documenters = Documenters {
        aide: cfg!(feature = "aide"),
        utoipa: cfg!(feature = "utoipa"),
    };
    let (mut item, mistakes) = transform(arguments.into(), item.into(), documenters);
    item.extend(mistakes.into_compile_errors());
    item.into()
}

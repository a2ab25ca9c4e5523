//! Tests handlers without arguments, handlers without a body, and every kind of pattern.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use axum::Router;
use axum::extract::{FromRequestParts, Path, Query, State};
use axum::http::{HeaderMap, Method, StatusCode, Uri};
use axum::routing::post;
use axum_idem::{Idempotency, idempotent};
use serde::Deserialize;

use crate::support::{post as request, runs_once, send};

#[idempotent(scope = token)]
async fn nothing() {}

#[tokio::test]
async fn a_handler_without_arguments_is_replayed() {
    let router = Router::new()
        .route("/", post(nothing))
        .layer(Idempotency::in_memory());
    let answer = runs_once(&router, || request("/", "nothing", "")).await;
    assert_eq!(answer.status, StatusCode::OK);
}

#[tokio::test]
async fn a_handler_without_arguments_can_be_called_directly() {
    assert_eq!(nothing(().into()).await.status(), StatusCode::OK);
}

#[derive(Clone, Default)]
struct Desk(Arc<AtomicUsize>);

#[idempotent(scope = global)]
async fn only_the_state(State(desk): State<Desk>) -> String {
    desk.0.fetch_add(1, Ordering::SeqCst).to_string()
}

#[idempotent(scope = global)]
async fn head_arguments_only(
    State(desk): State<Desk>,
    Path((account, order)): Path<(u64, String)>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
) -> String {
    let run = desk.0.fetch_add(1, Ordering::SeqCst);
    let agent = headers.contains_key("authorization");
    format!("{run} {account} {order} {method} {uri} {agent}")
}

#[tokio::test]
async fn handlers_without_a_body_extractor_are_replayed() {
    let router = Router::new()
        .route("/state", post(only_the_state))
        .route("/{account}/{order}", post(head_arguments_only))
        .with_state(Desk::default())
        .layer(Idempotency::in_memory());
    let answer = runs_once(&router, || request("/state", "a", "")).await;
    assert_eq!(answer.body, "0");
    let answer = runs_once(&router, || request("/7/x", "b", "")).await;
    assert_eq!(answer.body, "1 7 x POST /7/x true");
    // Reusing a key on another endpoint is a mistake of the client.
    let answer = send(&router, request("/8/x", "b", "")).await;
    assert_eq!(answer.status, StatusCode::CONFLICT);
}

struct User {
    id: u64,
    name: String,
    _proof: String,
}

impl<S: Sync> FromRequestParts<S> for User {
    type Rejection = StatusCode;

    async fn from_request_parts(
        parts: &mut axum::http::request::Parts,
        _: &S,
    ) -> Result<Self, StatusCode> {
        let proof = parts
            .headers
            .get("authorization")
            .ok_or(StatusCode::UNAUTHORIZED)?;
        Ok(Self {
            id: 42,
            name: "alice".to_owned(),
            _proof: format!("{proof:?}"),
        })
    }
}

#[derive(Clone, Copy, Deserialize)]
struct Page {
    from: usize,
}

#[idempotent(scope = (id, name))]
async fn patterns(
    User { id, ref name, .. }: User,
    State(mut desk): State<Desk>,
    all @ Query(Page { from }): Query<Page>,
    _: Method,
    State(_): State<Desk>,
    mut body: String,
) -> String {
    desk = Desk(Arc::clone(&desk.0));
    body.push('!');
    let run = desk.0.fetch_add(1, Ordering::SeqCst);
    format!("{run} {id} {name} {from} {} {body}", all.from)
}

#[tokio::test]
async fn arguments_may_be_bound_by_every_kind_of_pattern() {
    let router = Router::new()
        .route("/", post(patterns))
        .with_state(Desk::default())
        .layer(Idempotency::in_memory());
    let answer = runs_once(&router, || request("/?from=3", "patterns", "hello")).await;
    assert_eq!(answer.body, "0 42 alice 3 3 hello!");
}

#[idempotent(scope = token)]
async fn underscored(_desk: State<Desk>, (_first, second): (Method, Uri), _body: String) -> String {
    second.to_string()
}

#[idempotent(scope = token)]
async fn keyword(r#type: Method, r#struct: String) -> String {
    format!("{type} {struct}")
}

#[tokio::test]
async fn arguments_may_be_underscored_or_raw_identifiers() {
    let router = Router::new()
        .route("/underscored", post(underscored))
        .route("/keyword", post(keyword))
        .with_state(Desk::default())
        .layer(Idempotency::in_memory());
    let answer = runs_once(&router, || request("/underscored", "a", "x")).await;
    assert_eq!(answer.body, "/underscored");
    let answer = runs_once(&router, || request("/keyword", "b", "x")).await;
    assert_eq!(answer.body, "POST x");
}

#[idempotent(scope = token)]
#[expect(
    clippy::just_underscores_and_digits,
    clippy::too_many_arguments,
    reason = "axum supports sixteen arguments"
)]
async fn sixteen(
    _1: Method,
    _2: Method,
    _3: Method,
    _4: Method,
    _5: Method,
    _6: Method,
    _7: Method,
    _8: Method,
    _9: Method,
    _10: Method,
    _11: Method,
    _12: Method,
    _13: Method,
    _14: Method,
    _15: Method,
    body: String,
) -> String {
    body
}

#[tokio::test]
async fn a_handler_may_have_sixteen_arguments() {
    let router = Router::new()
        .route("/", post(sixteen))
        .layer(Idempotency::in_memory());
    assert_eq!(
        runs_once(&router, || request("/", "16", "x")).await.body,
        "x"
    );
}

//! Helpers that send requests and read responses.

use std::sync::LazyLock;

use axum::Router;
use axum::body::Body;
use axum::http::{Request, StatusCode, header};
use axum_idem::Idempotency;
use http_body_util::BodyExt as _;
use tower::ServiceExt as _;

/// A response with its complete body.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Answer {
    pub status: StatusCode,
    pub replayed: bool,
    pub body: String,
}

/// A `POST` with a key and the token of a user `alice`.
pub(crate) fn post(path: &str, key: &str, body: impl Into<Body>) -> Request<Body> {
    Request::post(path)
        .header("idempotency-key", key)
        .header(header::AUTHORIZATION, "Bearer alice")
        .header(header::CONTENT_TYPE, "application/json")
        .body(body.into())
        .expect("a valid request")
}

/// Covers every endpoint of these tests. A test may add its own layer below, which then takes
/// precedence.
static LAYER: LazyLock<Idempotency> = LazyLock::new(Idempotency::in_memory);

pub(crate) async fn send(router: &Router, request: Request<Body>) -> Answer {
    let response = router
        .clone()
        .layer(LAYER.clone())
        .oneshot(request)
        .await
        .expect("a router never fails");
    let status = response.status();
    let replayed = response.headers().contains_key("idempotency-replayed");
    let body = response.into_body().collect().await.expect("a body");
    Answer {
        status,
        replayed,
        body: String::from_utf8(body.to_bytes().to_vec()).expect("UTF-8"),
    }
}

/// Sends the same request twice and asserts that the second response replays the first.
pub(crate) async fn runs_once(router: &Router, request: impl Fn() -> Request<Body>) -> Answer {
    let first = send(router, request()).await;
    assert!(!first.replayed, "{first:?}");
    let second = send(router, request()).await;
    assert!(second.replayed, "{second:?}");
    assert_eq!((first.status, &first.body), (second.status, &second.body));
    first
}

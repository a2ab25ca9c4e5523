//! Tests every argument of the attribute in every form.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::post;
use axum::{Json, Router};
use axum_idem::{Idempotency, idempotent};

use crate::support::{post as request, runs_once, send};

#[idempotent(
    scope = global,
    ttl = "1d12h",
    required,
    record = [2xx, 4xx, 503],
    record_rejections,
    in_flight = wait("5s"),
    on_unknown = hold,
    unknown = [5xx, 404],
    max_run = "2m",
    fingerprint = json("/amount", "/currency"),
    crate = ::axum_idem,
)]
async fn everything(Json(body): Json<serde_json::Value>) -> (StatusCode, String) {
    (StatusCode::SERVICE_UNAVAILABLE, body["amount"].to_string())
}

#[idempotent(scope = token, record = all, in_flight = reject, on_unknown = rerun, fingerprint = body)]
async fn defaults_in_words(body: String) -> (StatusCode, String) {
    (StatusCode::INTERNAL_SERVER_ERROR, body)
}

#[idempotent(scope = token, fingerprint = json)]
async fn as_json(body: String) -> String {
    body
}

#[idempotent(scope = token, fingerprint = none)]
async fn without_the_body(body: String) -> String {
    body
}

mod renamed {
    pub(crate) use axum_idem as idem;
}

#[renamed::idem::idempotent(scope = token, crate = renamed::idem)]
async fn by_another_name(body: String) -> String {
    body
}

#[tokio::test]
async fn each_option_takes_effect() {
    let router = Router::new()
        .route("/everything", post(everything))
        .route("/defaults", post(defaults_in_words))
        .route("/json", post(as_json))
        .route("/none", post(without_the_body))
        .route("/renamed", post(by_another_name))
        .layer(Idempotency::in_memory());

    let answer = runs_once(&router, || request("/everything", "a", r#"{"amount":1}"#)).await;
    assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE);
    let other_member = send(
        &router,
        request("/everything", "a", r#"{"x":2,"amount":1}"#),
    )
    .await;
    assert!(other_member.replayed, "{other_member:?}");
    let answer = runs_once(&router, || request("/everything", "b", "{")).await;
    assert_eq!(answer.status, StatusCode::BAD_REQUEST);
    let mut keyless = request("/everything", "c", "{}");
    keyless.headers_mut().remove("idempotency-key");
    let answer = send(&router, keyless).await;
    assert!(
        answer.body.contains("idempotency_key_missing"),
        "{answer:?}"
    );

    let answer = runs_once(&router, || request("/defaults", "d", "x")).await;
    assert_eq!(answer.status, StatusCode::INTERNAL_SERVER_ERROR);

    runs_once(&router, || request("/json", "e", r#"{"a":1,"b":2}"#)).await;
    let reordered = send(&router, request("/json", "e", r#"{"b": 2, "a": 1}"#)).await;
    assert!(reordered.replayed, "{reordered:?}");

    runs_once(&router, || request("/none", "f", "x")).await;
    let other = send(&router, request("/none", "f", "y")).await;
    assert!(other.replayed, "{other:?}");

    runs_once(&router, || request("/renamed", "g", "x")).await;
}

#[derive(Clone)]
struct Desk {
    idem: Idempotency,
    runs: Arc<AtomicUsize>,
}

#[idempotent(scope = token, runtime = desk.idem)]
async fn runtime_by_name(State(desk): State<Desk>, body: String) -> String {
    let run = desk.runs.fetch_add(1, Ordering::SeqCst);
    format!("{run} {body}")
}

#[idempotent(scope = token, runtime = &desk.idem)]
async fn runtime_by_reference(State(desk): State<Desk>) -> String {
    desk.runs.fetch_add(1, Ordering::SeqCst).to_string()
}

#[idempotent(scope = token, runtime = desk.idem.clone())]
async fn runtime_by_value(State(desk): State<Desk>, body: String) -> String {
    let run = desk.runs.fetch_add(1, Ordering::SeqCst);
    format!("{run} {body}")
}

#[idempotent(scope = token, runtime = idem)]
async fn runtime_taken_apart(State(Desk { ref idem, .. }): State<Desk>, body: String) -> String {
    let _ = idem;
    body
}

#[tokio::test]
async fn a_handler_may_name_its_own_runtime() {
    let desk = Desk {
        idem: Idempotency::in_memory(),
        runs: Arc::default(),
    };
    let router = Router::new()
        .route("/name", post(runtime_by_name))
        .route("/reference", post(runtime_by_reference))
        .route("/value", post(runtime_by_value))
        .route("/apart", post(runtime_taken_apart))
        .with_state(desk);
    for path in ["/name", "/reference", "/value", "/apart"] {
        runs_once(&router, || request(path, path, "x")).await;
    }
}

//! A handler that does not know its outcome.

use std::convert::Infallible;
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::extract::{FromRequest, Path, Request, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use axum_idem::{Attempt, DoNotRecord, Idempotency, OutcomeUnknown, Scope, idempotent};

use crate::support::{Runs, Server};

fn text(runs: &Runs, attempt: &Attempt) -> String {
    format!(
        "run {}, attempt {}, fence {:?}",
        runs.count(),
        attempt.number(),
        attempt.fence()
    )
}

/// Says that it must not be recorded as well, in either order.
#[idempotent(scope = global, record = all)]
async fn reruns(State(runs): State<Runs>, attempt: Attempt) -> impl IntoResponse {
    (
        StatusCode::OK,
        DoNotRecord,
        OutcomeUnknown,
        text(&runs, &attempt),
    )
}

#[idempotent(scope = global, record = all, on_unknown = hold)]
async fn holds(State(runs): State<Runs>, attempt: Attempt, _body: Bytes) -> impl IntoResponse {
    (
        StatusCode::CREATED,
        OutcomeUnknown,
        DoNotRecord,
        text(&runs, &attempt),
    )
}

fn with_code(code: u16) -> StatusCode {
    StatusCode::from_u16(code).expect("a status")
}

#[idempotent(scope = global, record = all, unknown = [502, 504], on_unknown = hold)]
async fn codes(State(runs): State<Runs>, Path(code): Path<u16>) -> (StatusCode, String) {
    (with_code(code), runs.count().to_string())
}

#[idempotent(scope = global, record = [2xx, 503], unknown = [5xx, 201], on_unknown = hold)]
async fn classes(State(runs): State<Runs>, Path(code): Path<u16>) -> (StatusCode, String) {
    (with_code(code), runs.count().to_string())
}

#[idempotent(scope = global, unknown = [404], on_unknown = hold)]
async fn default_record(State(runs): State<Runs>, Path(code): Path<u16>) -> (StatusCode, String) {
    (with_code(code), runs.count().to_string())
}

#[idempotent(scope = global, unknown = [502], on_unknown = hold)]
async fn opted_out(State(runs): State<Runs>) -> impl IntoResponse {
    runs.count();
    (StatusCode::BAD_GATEWAY, DoNotRecord, "")
}

/// A body extractor that calls another service, and does not know what happened there.
struct Downstream;

impl FromRequest<Runs> for Downstream {
    type Rejection = Response;

    async fn from_request(_: Request, runs: &Runs) -> Result<Self, Response> {
        runs.count();
        Err((StatusCode::GATEWAY_TIMEOUT, OutcomeUnknown, "").into_response())
    }
}

#[idempotent(scope = global, on_unknown = hold)]
async fn rejected(_: Downstream) -> StatusCode {
    StatusCode::OK
}

/// A body extractor whose rejection has a status in `unknown`.
struct Unavailable;

impl FromRequest<Runs> for Unavailable {
    type Rejection = StatusCode;

    async fn from_request(_: Request, runs: &Runs) -> Result<Self, StatusCode> {
        runs.count();
        Err(StatusCode::BAD_GATEWAY)
    }
}

#[idempotent(scope = global, unknown = [502], on_unknown = hold)]
async fn not_begun(_: Unavailable) -> StatusCode {
    StatusCode::OK
}

#[idempotent(scope = global, unknown = [502], on_unknown = hold, record_rejections)]
async fn counted_rejection(_: Unavailable) -> StatusCode {
    StatusCode::OK
}

async fn start() -> (Server, Runs, Idempotency) {
    let (runs, idem) = (Runs::default(), Idempotency::in_memory());
    let router = Router::new()
        .route("/reruns", post(reruns))
        .route("/holds", post(holds))
        .route("/codes/{code}", post(codes))
        .route("/classes/{code}", post(classes))
        .route("/default/{code}", post(default_record))
        .route("/opted-out", post(opted_out))
        .route("/rejected", post(rejected))
        .route("/not-begun", post(not_begun))
        .route("/counted-rejection", post(counted_rejection))
        .layer(idem.clone())
        .with_state(runs.clone());
    (Server::start(router).await, runs, idem)
}

const UNKNOWN: &str = "idempotency_outcome_unknown";

#[tokio::test]
async fn an_unknown_outcome_runs_again_as_the_next_attempt() {
    let (server, _, _) = start().await;
    for attempt in 1..=3 {
        let response = server.post("/reruns", "k", "").await;
        assert_eq!(
            (response.status, response.is_replay()),
            (StatusCode::OK, false)
        );
        let expected = format!("run {attempt}, attempt {attempt}, fence Some({attempt})");
        assert_eq!(response.text(), expected);
    }
}

#[tokio::test]
async fn an_unknown_outcome_is_held_until_an_operator_resolves_it() {
    let (server, runs, idem) = start().await;
    let response = server.post("/holds", "k", "a").await;
    let text = "run 1, attempt 1, fence Some(1)";
    assert_eq!((response.status.as_u16(), response.text()), (201, text));
    for _ in 0..2 {
        let retry = server.post("/holds", "k", "a").await;
        assert_eq!(
            (retry.status.as_u16(), retry.code().as_str()),
            (409, UNKNOWN)
        );
    }
    let other = server.post("/holds", "k", "b").await;
    assert_eq!(other.code(), "idempotency_key_reused");
    let id = idem.record_id(&Scope::new(), "k");
    let happened = Response::new(Bytes::from_static(b"it happened"));
    let resolved = idem.resolve(id, happened, Duration::from_secs(60)).await;
    assert!(resolved.expect("memory does not fail"));
    let replay = server.post("/holds", "k", "a").await;
    assert_eq!((replay.text(), replay.is_replay()), ("it happened", true));
    assert_eq!(runs.started(), 1);
}

async fn is_unknown(server: Server, path: &str) -> bool {
    server.post(path, path, "").await;
    let retry = server.post(path, path, "").await;
    if retry.status == StatusCode::CONFLICT && !retry.is_replay() {
        assert_eq!(retry.code(), UNKNOWN, "{path}");
        return true;
    }
    assert!(retry.is_replay(), "{path}: it is recorded");
    false
}

#[tokio::test]
async fn an_unknown_status_wins_over_all_over_a_class_and_over_the_default_of_record() {
    let (server, _, _) = start().await;
    for (path, expected) in [
        ("/codes/200", false),
        ("/codes/502", true),
        ("/codes/503", false),
        ("/codes/504", true),
        ("/classes/200", false),
        ("/classes/201", true),
        ("/classes/500", true),
        ("/classes/503", false),
        ("/default/402", false),
        ("/default/404", true),
        ("/opted-out", true),
    ] {
        assert_eq!(is_unknown(server, path).await, expected, "{path}");
    }
}

#[tokio::test]
async fn a_rejection_has_an_unknown_outcome_only_if_it_says_so() {
    let (server, runs, _) = start().await;
    assert!(is_unknown(server, "/rejected").await);
    assert!(is_unknown(server, "/counted-rejection").await);
    assert_eq!(runs.started(), 2);
    for run in 3..=4 {
        assert_eq!(server.post("/not-begun", "k", "").await.status, 502);
        assert_eq!(runs.started(), run);
    }
}

/// A part that converts without an error, as axum's own parts do.
#[test]
fn outcome_unknown_converts_without_an_error() {
    fn is_infallible<P: axum::response::IntoResponseParts<Error = Infallible>>(_: P) {}
    is_infallible(OutcomeUnknown);
}

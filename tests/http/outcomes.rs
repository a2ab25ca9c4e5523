//! Tests how an attempt can end, and what a retry gets afterwards.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use axum::Router;
use axum::body::Body;
use axum::extract::{FromRequest, Json, Path, Query, Request, State};
use axum::http::{HeaderName, Method, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use axum_idem::{Attempt, DoNotRecord, Idempotency, idempotent};
use futures_util::FutureExt;
use serde::Deserialize;
use tower::ServiceExt;
use tower_http::catch_panic::CatchPanicLayer;

use crate::support::{KEY, REPLAYED, Runs, Server, request};

#[idempotent(scope = global)]
async fn status(State(runs): State<Runs>, Path(code): Path<u16>) -> (StatusCode, String) {
    let status = StatusCode::from_u16(code).expect("a status");
    (status, runs.count().to_string())
}

#[idempotent(scope = global, record = all)]
async fn recorded_whatever(
    State(runs): State<Runs>,
    Path(code): Path<u16>,
) -> (StatusCode, String) {
    let status = StatusCode::from_u16(code).expect("a status");
    (status, runs.count().to_string())
}

#[idempotent(scope = global, record = [2xx, 4xx, 503])]
async fn recorded_some(State(runs): State<Runs>, Path(code): Path<u16>) -> (StatusCode, String) {
    let status = StatusCode::from_u16(code).expect("a status");
    (status, runs.count().to_string())
}

#[derive(Deserialize)]
struct Codes {
    codes: String,
}

/// Each run returns the next code of the list.
#[idempotent(scope = global)]
async fn sequence(
    State(runs): State<Runs>,
    Query(Codes { codes }): Query<Codes>,
) -> (StatusCode, String) {
    let run = runs.count();
    let code = codes
        .split(',')
        .nth(run - 1)
        .and_then(|code| code.parse().ok());
    (code.expect("a code for each run"), run.to_string())
}

#[idempotent(scope = global)]
async fn opted_out(State(runs): State<Runs>) -> (StatusCode, DoNotRecord, String) {
    (StatusCode::OK, DoNotRecord, runs.count().to_string())
}

#[idempotent(scope = global)]
async fn empty(State(runs): State<Runs>) -> StatusCode {
    runs.count();
    StatusCode::NO_CONTENT
}

#[idempotent(scope = global)]
async fn parsed(State(runs): State<Runs>, Json(body): Json<u32>) -> String {
    format!("{} of {body}", runs.count())
}

#[idempotent(scope = global, record_rejections)]
async fn parsed_for_good(State(runs): State<Runs>, Json(body): Json<u32>) -> String {
    format!("{} of {body}", runs.count())
}

/// A body extractor that rejects every request until `IS_ALLOWED` is set.
struct Moody;

static IS_ALLOWED: AtomicBool = AtomicBool::new(false);

impl FromRequest<Runs> for Moody {
    type Rejection = StatusCode;

    async fn from_request(_: Request, _: &Runs) -> Result<Self, Self::Rejection> {
        if IS_ALLOWED.load(Ordering::SeqCst) {
            Ok(Self)
        } else {
            Err(StatusCode::UNPROCESSABLE_ENTITY)
        }
    }
}

#[idempotent(scope = global)]
async fn moody(State(runs): State<Runs>, _: Moody) -> String {
    runs.count().to_string()
}

#[idempotent(scope = global)]
async fn panics_once(State(runs): State<Runs>, attempt: Attempt) -> String {
    let run = runs.count();
    assert!(run > 1, "the first run panics");
    format!(
        "run {run}, attempt {}, fence {:?}",
        attempt.number(),
        attempt.fence()
    )
}

#[idempotent(scope = global, on_unknown = hold)]
async fn panics_and_holds(State(runs): State<Runs>) -> String {
    runs.count();
    std::panic::panic_any(42)
}

async fn start() -> (Server, Runs) {
    let runs = Runs::default();
    let router = Router::new()
        .route("/status/{code}", post(status))
        .route("/all/{code}", post(recorded_whatever))
        .route("/some/{code}", post(recorded_some))
        .route("/sequence", post(sequence))
        .route("/opted-out", post(opted_out))
        .route("/empty", post(empty))
        .route("/parsed", post(parsed))
        .route("/parsed-for-good", post(parsed_for_good))
        .route("/moody", post(moody))
        .route("/panics-once", post(panics_once))
        .route("/panics-and-holds", post(panics_and_holds))
        .layer(CatchPanicLayer::new())
        .layer(Idempotency::in_memory())
        .with_state(runs.clone());
    (Server::start(router).await, runs)
}

async fn is_recorded(server: Server, path: &str) -> bool {
    server.post(path, path, "").await;
    server.post(path, path, "").await.is_replay()
}

#[tokio::test]
async fn statuses_that_state_an_outcome_are_recorded_by_default() {
    let (server, _) = start().await;
    for code in [200, 201, 202, 303, 400, 402, 404, 409, 410, 422] {
        assert!(
            is_recorded(server, &format!("/status/{code}")).await,
            "{code}"
        );
    }
    for code in [401, 403, 408, 425, 429, 500, 502, 503, 504] {
        assert!(
            !is_recorded(server, &format!("/status/{code}")).await,
            "{code}"
        );
    }
}

#[tokio::test]
async fn an_endpoint_can_choose_the_recorded_statuses() {
    let (server, _) = start().await;
    for code in [200, 401, 429, 500, 503] {
        assert!(is_recorded(server, &format!("/all/{code}")).await, "{code}");
    }
    for (code, expected) in [
        (201, true),
        (401, true),
        (429, true),
        (503, true),
        (302, false),
        (500, false),
    ] {
        assert_eq!(
            is_recorded(server, &format!("/some/{code}")).await,
            expected,
            "{code}"
        );
    }
}

#[tokio::test]
async fn a_failed_run_releases_the_key_for_a_later_success() {
    let (server, runs) = start().await;
    let path = "/sequence?codes=503,201,500";
    let answers = [(503, false), (201, false), (201, true), (201, true)];
    for expected in answers {
        let answer = server.post(path, "k", "").await;
        assert_eq!((answer.status.as_u16(), answer.is_replay()), expected);
    }
    assert_eq!(runs.started(), 2);
}

#[tokio::test]
async fn a_released_key_accepts_a_different_request() {
    let (server, _) = start().await;
    server.post("/status/500", "k", "").await;
    assert_eq!(server.post("/status/201", "k", "").await.text(), "2");
    assert_eq!(
        server.post("/status/500", "k", "").await.code(),
        "idempotency_key_reused"
    );
}

#[tokio::test]
async fn do_not_record_keeps_a_response_from_being_recorded() {
    let (server, runs) = start().await;
    for run in ["1", "2"] {
        let answer = server.post("/opted-out", "k", "").await;
        assert_eq!((answer.text(), answer.is_replay()), (run, false));
        // The client does not see the mark.
        let mut headers: Vec<_> = answer.headers.keys().map(HeaderName::as_str).collect();
        headers.sort_unstable();
        assert_eq!(headers, ["content-length", "content-type", "date"]);
    }
    assert_eq!(runs.started(), 2);
}

#[tokio::test]
async fn an_empty_response_is_replayed() {
    let (server, runs) = start().await;
    server.post("/empty", "k", "").await;
    let again = server.post("/empty", "k", "").await;
    assert_eq!(
        (again.status.as_u16(), again.is_replay(), again.body.len()),
        (204, true, 0)
    );
    assert_eq!(runs.started(), 1);
}

async fn send_json(server: Server, path: &str, body: &str) -> (u16, bool) {
    let headers = [(KEY, "k"), ("content-type", "application/json")];
    let answer = server
        .send(request(Method::POST, path, headers, body))
        .await;
    (answer.status.as_u16(), answer.is_replay())
}

#[tokio::test]
async fn a_rejected_body_releases_the_key() {
    let (server, runs) = start().await;
    assert_eq!(send_json(server, "/parsed", "nonsense").await, (400, false));
    // The handler did not run, so the corrected body under the same key is no mismatch.
    assert_eq!(send_json(server, "/parsed", "7").await, (200, false));
    assert_eq!(send_json(server, "/parsed", "7").await, (200, true));
    assert_eq!(runs.started(), 1);
}

#[tokio::test]
async fn a_rejection_is_recorded_with_record_rejections() {
    let (server, runs) = start().await;
    assert_eq!(
        send_json(server, "/parsed-for-good", "nonsense").await,
        (400, false)
    );
    assert_eq!(
        send_json(server, "/parsed-for-good", "nonsense").await,
        (400, true)
    );
    assert_eq!(
        send_json(server, "/parsed-for-good", "7").await,
        (409, false)
    );
    assert_eq!(runs.started(), 0);
}

#[tokio::test]
async fn a_rejection_of_a_custom_extractor_is_not_recorded() {
    let (server, runs) = start().await;
    assert_eq!(server.post("/moody", "k", "").await.status, 422);
    IS_ALLOWED.store(true, Ordering::SeqCst);
    assert_eq!(server.post("/moody", "k", "").await.text(), "1");
    assert!(server.post("/moody", "k", "").await.is_replay());
    assert_eq!(runs.started(), 1);
}

#[tokio::test]
async fn a_panic_unwinds_and_the_next_request_runs_again() {
    let (server, runs) = start().await;
    assert_eq!(server.post("/panics-once", "k", "").await.status, 500);
    let again = server.post("/panics-once", "k", "").await;
    assert_eq!(again.text(), "run 2, attempt 2, fence Some(2)");
    assert!(server.post("/panics-once", "k", "").await.is_replay());
    assert_eq!(runs.started(), 2);
}

#[tokio::test]
async fn after_a_panic_a_different_request_is_a_mismatch() {
    let (server, _) = start().await;
    server.post("/panics-once", "k", "a").await;
    assert_eq!(
        server.post("/panics-once", "k", "b").await.code(),
        "idempotency_key_reused"
    );
}

#[tokio::test]
async fn on_unknown_hold_refuses_a_key_of_unknown_outcome() {
    let (server, runs) = start().await;
    assert_eq!(server.post("/panics-and-holds", "k", "").await.status, 500);
    for _ in 0..2 {
        let answer = server.post("/panics-and-holds", "k", "").await;
        assert_eq!(
            (answer.status.as_u16(), answer.code().as_str()),
            (409, "idempotency_outcome_unknown")
        );
    }
    assert_eq!(runs.started(), 1);
}

#[tokio::test]
async fn a_panic_without_a_catch_panic_layer_frees_the_key() {
    static RUNS: AtomicUsize = AtomicUsize::new(0);

    #[idempotent(scope = global)]
    async fn panics_once() -> &'static str {
        assert!(
            RUNS.fetch_add(1, Ordering::SeqCst) > 0,
            "the first run panics"
        );
        "ran"
    }
    let server = Server::start(
        Router::new()
            .route("/", post(panics_once))
            .layer(Idempotency::in_memory()),
    )
    .await;
    let request = "POST / HTTP/1.1\r\nhost: a\r\nidempotency-key: k\r\nconnection: close\r\ncontent-length: 0\r\n\r\n";
    assert!(server.write_and_read(request).await.is_empty());
    assert_eq!(server.post("/", "k", "").await.text(), "ran");
}

/// A unit test may poll a handler without a tokio runtime.
#[test]
fn a_handler_that_never_waits_needs_no_tokio_runtime() {
    #[idempotent(scope = global)]
    async fn panics_once(State(runs): State<Runs>) -> String {
        let run = runs.count();
        assert!(run > 1, "the first run panics");
        run.to_string()
    }
    let router = Router::new()
        .route("/", post(panics_once))
        .layer(Idempotency::in_memory())
        .layer(CatchPanicLayer::new())
        .with_state(Runs::default());
    for (status, is_replay) in [(500, false), (200, false), (200, true)] {
        let request = request(Method::POST, "/", [(KEY, "k")], "").map(Body::new);
        let answer = router.clone().oneshot(request).now_or_never();
        let answer = answer
            .expect("ready at the first poll")
            .expect("infallible");
        assert_eq!(answer.status(), status);
        assert_eq!(answer.headers().contains_key(REPLAYED), is_replay);
    }
}

/// All attempts at one record derive the same key. Other records and other labels derive other keys.
#[tokio::test]
async fn derived_keys_depend_on_the_record_and_the_label() {
    #[idempotent(scope = global)]
    async fn derive(State(seen): State<Arc<AtomicUsize>>, attempt: Attempt) -> Response {
        let keys = format!(
            "{} {}",
            attempt.derive_key("charge"),
            attempt.derive_key("receipt")
        );
        if seen.fetch_add(1, Ordering::SeqCst) == 0 {
            return (StatusCode::SERVICE_UNAVAILABLE, keys).into_response();
        }
        keys.into_response()
    }
    let router = Router::new()
        .route("/", post(derive))
        .layer(Idempotency::in_memory())
        .with_state(Arc::default());
    let server = Server::start(router).await;
    let first = server.post("/", "a", "").await;
    let second = server.post("/", "a", "").await;
    assert_eq!(first.text(), second.text());
    let (charge, receipt) = first.text().split_once(' ').expect("two keys");
    assert_ne!(charge, receipt);
    assert_ne!(server.post("/", "b", "").await.text(), first.text());
    let unkeyed =
        |server: Server| async move { server.send(request(Method::POST, "/", [], "")).await };
    assert_ne!(unkeyed(server).await.text(), unkeyed(server).await.text());
}

/// A card was declined, and the client sends another card under the same key. The downstream service
/// must not see a reused key.
#[tokio::test]
async fn a_different_request_under_the_same_key_derives_new_keys() {
    #[idempotent(scope = global)]
    async fn charge(attempt: Attempt, _: String) -> (DoNotRecord, String) {
        (DoNotRecord, attempt.derive_key("charge"))
    }
    let router = Router::new()
        .route("/", post(charge))
        .layer(Idempotency::in_memory());
    let server = Server::start(router).await;
    let declined = server.post("/", "k", "one card").await;
    let retried = server.post("/", "k", "one card").await;
    assert_eq!(declined.text(), retried.text());
    let corrected = server.post("/", "k", "another card").await;
    assert_ne!(corrected.text(), declined.text());
}

#[derive(Clone)]
struct Passing {
    inner: Router,
}

/// A body extractor that rejects every second request.
struct Fussy;

impl FromRequest<Runs> for Fussy {
    type Rejection = StatusCode;

    async fn from_request(_: Request, runs: &Runs) -> Result<Self, Self::Rejection> {
        let is_odd = runs.count() % 2 == 1;
        is_odd
            .then_some(Self)
            .ok_or(StatusCode::UNPROCESSABLE_ENTITY)
    }
}

fn facts(attempt: &Attempt) -> String {
    let id = attempt.record_id().map(|id| id.to_string());
    format!("{} {id:?} {}", attempt.number(), attempt.derive_key("x"))
}

#[idempotent(scope = global)]
async fn passes_on(State(app): State<Passing>, attempt: Attempt, request: Request) -> Response {
    let before = facts(&attempt);
    let inner = app.inner.oneshot(request).await.expect("infallible");
    assert_eq!(
        facts(&attempt),
        before,
        "the attempt of the outer handler must not change"
    );
    let status = inner.status();
    let inner = axum::body::to_bytes(inner.into_body(), 1 << 10).await;
    let inner = String::from_utf8(inner.expect("a short body").into()).expect("UTF-8");
    (status, DoNotRecord, format!("{before}\n{inner}")).into_response()
}

#[tokio::test]
async fn an_inner_handler_has_its_own_attempt() {
    #[idempotent(scope = global)]
    async fn is_next(attempt: Attempt, _: String) -> String {
        facts(&attempt)
    }
    let next = Idempotency::builder().namespace("next").build();
    let idem = Idempotency::in_memory();
    let inner = Router::new().route("/", post(is_next)).layer(next.clone());
    let router = Router::new()
        .route("/", post(passes_on))
        .layer(idem.clone())
        .with_state(Passing { inner });
    let server = Server::start(router).await;
    let scope = axum_idem::Scope::new();
    let first = server.post("/", "k", "").await;
    let (outer, inner) = first.text().split_once('\n').expect("two lines");
    for (idem, facts) in [(idem, outer), (next, inner)] {
        let id = idem.record_id(&scope, "k").to_string();
        assert!(facts.contains(&id), "{facts}");
    }
    assert_ne!(outer.split(' ').next_back(), inner.split(' ').next_back());
    // The inner handler replays, although the outer handler runs again.
    assert_eq!(server.post("/", "k", "").await.text(), first.text());
}

/// The outer handler is at its first attempt. The inner handler is at its second attempt.
#[tokio::test]
async fn a_rejection_in_an_inner_handler_keeps_its_outcome_unknown() {
    #[idempotent(scope = global)]
    async fn panics(State(runs): State<Runs>, _: Fussy) -> String {
        panic!("run {}", runs.started())
    }
    let next = Idempotency::builder().namespace("next").build();
    let runs = Runs::default();
    let inner = Router::new()
        .route("/", post(panics))
        .layer(CatchPanicLayer::new())
        .layer(next.clone())
        .with_state(runs);
    let router = Router::new()
        .route("/", post(passes_on))
        .layer(Idempotency::in_memory())
        .with_state(Passing { inner });
    let server = Server::start(router).await;
    let id = next.record_id(&axum_idem::Scope::new(), "k");
    for status in [500, 422] {
        assert_eq!(server.post("/", "k", "").await.status, status);
        let entry = next.look_up(id).await.expect("the store works");
        let is_unknown = matches!(entry, Some(axum_idem::store::Entry::Unknown { .. }));
        assert!(is_unknown, "after a {status}: {entry:?}");
    }
}

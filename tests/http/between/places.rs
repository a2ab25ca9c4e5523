//! The table of the guide: which layers go below the `Idempotency` layer and which above.
//!
//! `commits` tests transactions, `responses` tests compression, and `cancelled` and `disconnects` test
//! timeouts. `panics` tests where a panic is caught.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::extract::{Request, State};
use axum::http::{HeaderValue, Method, StatusCode};
use axum::middleware::{Next, from_fn_with_state, map_response};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use axum_idem::store::Entry;
use axum_idem::{Attempt, CommitError, Idempotency, Scope, idempotent};
use tower_http::cors::{AllowOrigin, CorsLayer};
use tower_http::request_id::{MakeRequestId, RequestId, SetRequestIdLayer};

use crate::support::{Answer, KEY, Runs, Server, request};

#[idempotent(scope = global)]
async fn count(State(runs): State<Runs>) -> (StatusCode, String) {
    (StatusCode::CREATED, runs.count().to_string())
}

#[idempotent(scope = global, required)]
async fn required() -> StatusCode {
    StatusCode::CREATED
}

/// Fails, because the store in memory has no transactions.
#[idempotent(scope = global)]
async fn commits(attempt: Attempt) -> Result<Response, CommitError> {
    attempt
        .prepare("paid")
        .await
        .map(IntoResponse::into_response)
}

#[idempotent(scope = global, record = all)]
async fn records_all(State(runs): State<Runs>) -> (StatusCode, String) {
    (StatusCode::CREATED, runs.count().to_string())
}

/// A service with one layer, below the `Idempotency` layer or above it.
async fn start(place: Place, layer: impl FnOnce(Router) -> Router) -> (Server, Runs, Idempotency) {
    let (runs, idem) = (Runs::default(), Idempotency::in_memory());
    let router = Router::new()
        .route("/", post(count))
        .route("/required", post(required))
        .route("/commits", post(commits))
        .route("/records-all", post(records_all))
        .with_state(runs.clone());
    let router = match place {
        Place::Below => layer(router).layer(idem.clone()),
        Place::Above => layer(router.layer(idem.clone())),
    };
    (Server::start(router).await, runs, idem)
}

#[derive(Clone, Copy, Debug)]
enum Place {
    Below,
    Above,
}

async fn send(server: Server, header: (&str, &str)) -> Answer {
    let headers = [(KEY, "k"), header];
    server.send(request(Method::POST, "/", headers, "")).await
}

async fn recorded(idem: &Idempotency) -> String {
    let id = idem.record_id(&Scope::new(), "k");
    match idem.look_up(id).await {
        Ok(Some(Entry::Recorded { record, .. })) => format!("{record:?}"),
        entry => panic!("{entry:?}"),
    }
}

/// Saves the session of a request behind its handler.
#[derive(Clone, Default)]
struct Sessions {
    saved: Arc<Mutex<u32>>,
    fails: Arc<AtomicBool>,
}

async fn save(State(sessions): State<Sessions>, request: Request, next: Next) -> Response {
    let mut response = next.run(request).await;
    if sessions.fails.load(Ordering::SeqCst) {
        return StatusCode::INTERNAL_SERVER_ERROR.into_response();
    }
    *sessions.saved.lock().expect("no panic") += 1;
    let cookie = HeaderValue::from_static("session=1");
    response.headers_mut().insert("set-cookie", cookie);
    response
}

/// Below: a session that could not be saved takes the record with it. Each replay gets a cookie of its
/// own, and the record contains none.
#[tokio::test]
async fn a_session_that_is_not_saved_below_is_not_recorded() {
    let sessions = Sessions::default();
    let layer = |router: Router| router.layer(from_fn_with_state(sessions.clone(), save));
    let (server, runs, idem) = start(Place::Below, layer).await;
    sessions.fails.store(true, Ordering::SeqCst);
    assert_eq!(send(server, ("accept", "*/*")).await.status, 500);
    sessions.fails.store(false, Ordering::SeqCst);
    for (text, is_replay) in [("2", false), ("2", true)] {
        let answer = send(server, ("accept", "*/*")).await;
        assert_eq!((answer.text(), answer.is_replay()), (text, is_replay));
        assert_eq!(answer.headers["set-cookie"], "session=1");
    }
    assert!(!recorded(&idem).await.contains("session"));
    assert_eq!(
        (runs.started(), *sessions.saved.lock().expect("no panic")),
        (2, 2)
    );
}

/// Above the layer, a session that could not be saved does not prevent the record.
#[tokio::test]
async fn a_session_that_is_not_saved_above_is_recorded() {
    let sessions = Sessions::default();
    let layer = |router: Router| router.layer(from_fn_with_state(sessions.clone(), save));
    let (server, runs, _) = start(Place::Above, layer).await;
    sessions.fails.store(true, Ordering::SeqCst);
    assert_eq!(send(server, ("accept", "*/*")).await.status, 500);
    sessions.fails.store(false, Ordering::SeqCst);
    assert!(send(server, ("accept", "*/*")).await.is_replay());
    assert_eq!(runs.started(), 1);
}

/// Either way a replay has the headers for the origin that asks, and the record has none.
#[tokio::test]
async fn cors_headers_are_those_of_the_origin_that_asks() {
    for place in [Place::Below, Place::Above] {
        let cors = CorsLayer::new().allow_origin(AllowOrigin::mirror_request());
        let (server, _, idem) = start(place, |router| router.layer(cors)).await;
        for origin in ["https://a.example", "https://b.example"] {
            let answer = send(server, ("origin", origin)).await;
            assert_eq!(
                answer.headers["access-control-allow-origin"], origin,
                "{place:?}"
            );
        }
        assert!(
            !recorded(&idem).await.contains("access-control"),
            "{place:?}"
        );
    }
}

#[derive(Clone, Default)]
struct Counting(Arc<AtomicU64>);

impl MakeRequestId for Counting {
    fn make_request_id<B>(&mut self, _: &http::Request<B>) -> Option<RequestId> {
        let number = self.0.fetch_add(1, Ordering::SeqCst) + 1;
        Some(RequestId::new(number.into()))
    }
}

/// Either way a replay has the id of its own request.
#[tokio::test]
async fn each_replay_has_the_request_id_of_its_own_request() {
    for place in [Place::Below, Place::Above] {
        let layer = |router: Router| {
            router
                .layer(tower_http::request_id::PropagateRequestIdLayer::x_request_id())
                .layer(SetRequestIdLayer::x_request_id(Counting::default()))
        };
        let (server, _, idem) = start(place, layer).await;
        for id in ["1", "2", "3"] {
            let answer = send(server, ("accept", "*/*")).await;
            assert_eq!(answer.headers["x-request-id"], id, "{place:?}");
            assert_eq!(answer.is_replay(), id != "1", "{place:?}");
        }
        assert!(!recorded(&idem).await.contains("x-request-id"), "{place:?}");
    }
}

/// Either way a page can read why its request was refused, and the refusal has the id of its request.
#[tokio::test]
async fn a_refusal_has_the_headers_of_the_layers() {
    for place in [Place::Below, Place::Above] {
        let layer = |router: Router| {
            router
                .layer(CorsLayer::new().allow_origin(AllowOrigin::mirror_request()))
                .layer(tower_http::request_id::PropagateRequestIdLayer::x_request_id())
                .layer(SetRequestIdLayer::x_request_id(Counting::default()))
        };
        let (server, ..) = start(place, layer).await;
        let origin = ("origin", "https://a.example");
        let unkeyed = request(Method::POST, "/required", [origin], "");
        let keyed = request(Method::POST, "/commits", [(KEY, "k"), origin], "");
        for (id, code, request) in [
            ("1", "idempotency_key_missing", unkeyed),
            ("2", "idempotency_not_transactional", keyed),
        ] {
            let refused = server.send(request).await;
            assert_eq!(refused.code(), code);
            for (name, value) in [
                ("access-control-allow-origin", "https://a.example"),
                ("x-request-id", id),
                ("content-type", "application/problem+json"),
            ] {
                let values: Vec<_> = refused.headers.get_all(name).iter().collect();
                assert_eq!(values, [value], "{place:?} {name}");
            }
        }
    }
}

/// A layer that responds with a `CommitError` releases the key, whatever the endpoint records.
#[tokio::test]
async fn a_failed_commit_of_a_layer_is_not_recorded() {
    let fails = Arc::new(AtomicBool::new(true));
    let commit = |State(fails): State<Arc<AtomicBool>>, request: Request, next: Next| async move {
        let response = next.run(request).await;
        if fails.swap(false, Ordering::SeqCst) {
            return CommitError::Unsupported.into_response();
        }
        response
    };
    let layer = |router: Router| router.layer(from_fn_with_state(fails, commit));
    let (server, runs, _) = start(Place::Below, layer).await;
    let failed = server.post("/records-all", "k", "").await;
    assert_eq!(failed.code(), "idempotency_not_transactional");
    assert_eq!(server.post("/records-all", "k", "").await.text(), "2");
    assert_eq!(runs.started(), 2);
}

/// A layer may give a refusal another status.
#[tokio::test]
async fn a_refusal_has_the_status_that_a_layer_has_given_it() {
    let moved = map_response(|mut response: Response| async {
        *response.status_mut() = StatusCode::CONFLICT;
        response
    });
    let (server, ..) = start(Place::Below, |router| router.layer(moved)).await;
    let refused = server.post("/commits", "k", "").await;
    assert_eq!(refused.status, StatusCode::CONFLICT);
    assert!(refused.text().contains(r#""status":409"#), "{refused:?}");
}

/// Refuses every token but that of Alice, until her token is revoked.
async fn authenticate(
    State(revoked): State<Arc<AtomicBool>>,
    request: Request,
    next: Next,
) -> Response {
    let is_alice = request
        .headers()
        .get("authorization")
        .is_some_and(|it| it == "Bearer alice");
    if !is_alice || revoked.load(Ordering::SeqCst) {
        return StatusCode::UNAUTHORIZED.into_response();
    }
    next.run(request).await
}

/// Either way it comes before a replay. Above, the refused request does not even get a slot.
#[tokio::test]
async fn a_revoked_token_gets_no_replay_from_a_layer_that_authenticates() {
    for place in [Place::Below, Place::Above] {
        let revoked = Arc::new(AtomicBool::new(false));
        let layer =
            |router: Router| router.layer(from_fn_with_state(revoked.clone(), authenticate));
        let (server, runs, _) = start(place, layer).await;
        let alice = || send(server, ("authorization", "Bearer alice"));
        assert_eq!(
            send(server, ("authorization", "Bearer bob")).await.status,
            401
        );
        assert!(!alice().await.is_replay());
        assert!(alice().await.is_replay());
        revoked.store(true, Ordering::SeqCst);
        assert_eq!(alice().await.status, 401, "{place:?}");
        assert_eq!(runs.started(), 1);
    }
}

/// A layer above sees the response that the client gets. The status that it sets does not affect the record.
#[tokio::test]
async fn a_failure_above_the_layer_does_not_undo_the_record() {
    let fails = map_response(|_: Response| async { StatusCode::BAD_GATEWAY });
    let (server, runs, idem) = start(Place::Above, |router| router.layer(fails)).await;
    for _ in 0..2 {
        assert_eq!(send(server, ("accept", "*/*")).await.status, 502);
    }
    assert!(recorded(&idem).await.contains("201"));
    assert_eq!(runs.started(), 1);
}

//! Tests the last argument. It is extracted on every request, unless it may read the body.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use axum::Router;
use axum::extract::{
    FromRef, FromRequest, FromRequestParts, OptionalFromRequestParts, Request, State,
};
use axum::http::request::Parts;
use axum::http::{Method, StatusCode};
use axum::routing::post;
use axum_idem::{Idempotency, idempotent};

use crate::support::{Answer, KEY, Runs, Server, read_to_end, request, status_of};

#[derive(Clone)]
struct App {
    runs: Runs,
    /// How often the last argument was extracted.
    extracted: Arc<AtomicUsize>,
    idem: Idempotency,
}

impl FromRef<App> for Runs {
    fn from_ref(app: &App) -> Self {
        app.runs.clone()
    }
}

/// The user of a token. A token that ends in `revoked` has no user.
struct User(String);

fn user(parts: &Parts, app: &App) -> Option<User> {
    app.extracted.fetch_add(1, Ordering::SeqCst);
    let token = parts.headers.get("authorization")?.to_str().ok()?;
    (!token.ends_with("revoked")).then(|| User(token.to_owned()))
}

impl FromRequestParts<App> for User {
    type Rejection = StatusCode;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, StatusCode> {
        user(parts, app).ok_or(StatusCode::UNAUTHORIZED)
    }
}

impl OptionalFromRequestParts<App> for User {
    type Rejection = StatusCode;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Option<Self>, StatusCode> {
        Ok(user(parts, app))
    }
}

/// Hides the endpoint from users who are not members.
struct Member;

impl FromRequestParts<App> for Member {
    type Rejection = StatusCode;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, StatusCode> {
        user(parts, app).map(|_| Self).ok_or(StatusCode::NOT_FOUND)
    }
}

/// Authenticates the request and may read the body.
struct Signed;

impl FromRequest<App> for Signed {
    type Rejection = StatusCode;

    async fn from_request(request: Request, app: &App) -> Result<Self, StatusCode> {
        let (parts, _) = request.into_parts();
        user(&parts, app)
            .map(|_| Self)
            .ok_or(StatusCode::UNAUTHORIZED)
    }
}

#[idempotent(scope = header("x-workspace-id"))]
async fn only(user: User) -> String {
    user.0
}

#[idempotent(scope = header("x-workspace-id"))]
async fn last(State(runs): State<Runs>, user: User) -> String {
    format!("{}: {}", user.0, runs.count())
}

#[idempotent(scope = header("x-workspace-id"), runtime = app.idem)]
async fn on_its_own_settings(State(app): State<App>, user: User) -> String {
    format!("{}: {}", user.0, app.runs.count())
}

#[idempotent(scope = header("x-workspace-id"))]
async fn optional(State(runs): State<Runs>, user: Option<User>) -> String {
    format!("{}: {}", user.is_some(), runs.count())
}

#[idempotent(scope = header("x-workspace-id"))]
async fn fallible(State(runs): State<Runs>, user: Result<User, StatusCode>) -> String {
    format!("{}: {}", user.is_ok(), runs.count())
}

#[idempotent(scope = header("x-workspace-id"), record_rejections)]
async fn hidden(State(runs): State<Runs>, _: Member) -> String {
    runs.count().to_string()
}

#[idempotent(scope = header("x-workspace-id"))]
async fn signed(State(runs): State<Runs>, _: Signed) -> String {
    runs.count().to_string()
}

#[idempotent(scope = token)]
async fn by_token(State(runs): State<Runs>, _: User) -> String {
    runs.count().to_string()
}

async fn start_with(idem: Idempotency) -> (Server, App) {
    let app = App {
        runs: Runs::default(),
        extracted: Arc::default(),
        idem: idem.clone(),
    };
    let router = Router::new()
        .route("/only", post(only))
        .route("/last", post(last))
        .route("/own", post(on_its_own_settings))
        .route("/optional", post(optional))
        .route("/fallible", post(fallible))
        .route("/hidden", post(hidden))
        .route("/signed", post(signed))
        .route("/by-token", post(by_token))
        .layer(idem)
        .with_state(app.clone());
    (Server::start(router).await, app)
}

async fn start() -> (Server, App) {
    start_with(Idempotency::in_memory()).await
}

async fn send(server: Server, path: &str, token: &str) -> Answer {
    let headers = [
        (KEY, path),
        ("x-workspace-id", "acme"),
        ("authorization", token),
    ];
    let headers = headers.into_iter().filter(|(_, value)| !value.is_empty());
    server.send(request(Method::POST, path, headers, "")).await
}

#[tokio::test]
async fn an_authenticating_extractor_in_last_position_protects_replays() {
    let (server, app) = start().await;
    for (path, body) in [
        ("/only", "alice"),
        ("/last", "alice: 1"),
        ("/own", "alice: 2"),
    ] {
        for is_replay in [false, true] {
            let response = send(server, path, "alice").await;
            assert_eq!((response.text(), response.is_replay()), (body, is_replay));
        }
        for token in ["alice, revoked", ""] {
            let response = send(server, path, token).await;
            assert_eq!(response.status, 401, "{path}, {token:?}");
            assert_eq!(response.text(), "", "{path}, {token:?}");
        }
    }
    assert_eq!(app.runs.started(), 2);
}

#[tokio::test]
async fn a_replay_extracts_the_last_argument_again() {
    let (server, app) = start().await;
    assert_eq!(send(server, "/by-token", "revoked").await.status, 401);
    assert_eq!(send(server, "/by-token", "alice").await.text(), "1");
    assert!(send(server, "/by-token", "alice").await.is_replay());
    assert_eq!(
        (app.runs.started(), app.extracted.load(Ordering::SeqCst)),
        (1, 3)
    );
}

#[tokio::test]
async fn an_optional_or_fallible_argument_is_extracted_on_every_request() {
    for path in ["/optional", "/fallible"] {
        let (server, app) = start().await;
        assert_eq!(send(server, path, "alice").await.text(), "true: 1");
        let replay = send(server, path, "").await;
        assert!(replay.is_replay());
        assert_eq!(replay.text(), "true: 1");
        assert_eq!(
            (app.runs.started(), app.extracted.load(Ordering::SeqCst)),
            (1, 2)
        );
    }
}

#[tokio::test]
async fn a_rejection_before_the_body_is_read_is_never_recorded() {
    let (server, app) = start().await;
    assert_eq!(send(server, "/hidden", "").await.status, 404);
    let response = send(server, "/hidden", "alice").await;
    assert_eq!((response.text(), response.is_replay()), ("1", false));
    assert_eq!(send(server, "/hidden", "").await.status, 404);
    assert!(send(server, "/hidden", "alice").await.is_replay());
    assert_eq!(app.runs.started(), 1);
}

/// The argument may read the body, so it is extracted only after the claim.
#[tokio::test]
async fn an_argument_that_implements_from_request_is_not_extracted_on_a_replay() {
    let (server, app) = start().await;
    assert!(!send(server, "/signed", "alice").await.is_replay());
    assert!(send(server, "/signed", "revoked").await.is_replay());
    assert_eq!(
        (app.runs.started(), app.extracted.load(Ordering::SeqCst)),
        (1, 1)
    );
}

#[cfg(feature = "testing")]
#[tokio::test]
async fn a_rejection_before_the_body_is_read_makes_no_store_call() {
    use axum_idem::store::MemoryStore;
    use axum_idem::testing::{FaultStore, Operation};

    let store = FaultStore::new(MemoryStore::default());
    let idem = Idempotency::builder().store(store.clone()).build();
    let (server, _) = start_with(idem).await;
    for path in ["/last", "/hidden", "/own"] {
        let head = format!(
            "POST {path} HTTP/1.1\r\nhost: localhost\r\nidempotency-key: k\r\n\
             x-workspace-id: acme\r\ncontent-length: 100\r\nconnection: close\r\n\r\n"
        );
        // The client never sends the body.
        let stream = server.write(head).await;
        let status = status_of(&read_to_end(stream).await);
        assert!(matches!(status, 401 | 404), "{path}: {status}");
    }
    assert_eq!(store.calls(Operation::Claim), 0);
}

#[tokio::test]
async fn the_body_is_fingerprinted_although_no_argument_reads_it() {
    let (server, app) = start().await;
    let send = |body| {
        let headers = [
            (KEY, "k"),
            ("x-workspace-id", "acme"),
            ("authorization", "alice"),
        ];
        server.send(request(Method::POST, "/last", headers, body))
    };
    assert!(!send("a").await.is_replay());
    assert!(send("a").await.is_replay());
    assert_eq!(send("b").await.code(), "idempotency_key_reused");
    assert_eq!(app.runs.started(), 1);
}

//! Tests that equal keys of two callers never share a record.

use axum::Router;
use axum::body::Bytes;
use axum::extract::{FromRequestParts, Path, State};
use axum::http::request::Parts;
use axum::http::{Method, StatusCode};
use axum::routing::post;
use axum_idem::{Idempotency, idempotent};

use crate::support::{KEY, Runs, Server, request};

/// The user of a token of the form `name.anything`. The token `name.revoked` has no user.
struct User {
    id: String,
}

impl<S: Send + Sync> FromRequestParts<S> for User {
    type Rejection = StatusCode;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Self::Rejection> {
        let token = parts
            .headers
            .get("authorization")
            .and_then(|token| token.to_str().ok());
        match token.and_then(|token| token.split_once('.')) {
            Some((id, state)) if state != "revoked" => Ok(Self { id: id.into() }),
            _ => Err(StatusCode::UNAUTHORIZED),
        }
    }
}

#[idempotent(scope = token)]
async fn by_token(State(runs): State<Runs>, _: Bytes) -> String {
    runs.count().to_string()
}

#[idempotent(scope = user.id)]
async fn by_user(State(runs): State<Runs>, user: User, _: Bytes) -> String {
    format!("{}: {}", user.id, runs.count())
}

#[idempotent(scope = header("X-Workspace-Id"))]
async fn by_header(State(runs): State<Runs>) -> String {
    runs.count().to_string()
}

#[idempotent(scope = (header("x-workspace-id"), user.id, 7))]
async fn by_all(user: User, State(runs): State<Runs>) -> String {
    format!("{}: {}", user.id, runs.count())
}

#[idempotent(scope = tenant)]
async fn by_last(State(runs): State<Runs>, Path(tenant): Path<String>) -> String {
    format!("{tenant}: {}", runs.count())
}

/// The argument `token` shadows the built-in `token`.
#[idempotent(scope = token)]
async fn shadowed(Path(token): Path<String>, State(runs): State<Runs>, _: Bytes) -> String {
    format!("{token}: {}", runs.count())
}

async fn start() -> (Server, Runs) {
    let runs = Runs::default();
    let router = Router::new()
        .route("/by-token", post(by_token))
        .route("/by-user", post(by_user))
        .route("/by-header", post(by_header))
        .route("/by-all", post(by_all))
        .route("/tenants/{tenant}", post(by_last))
        .route("/shadowed/{token}", post(shadowed))
        .layer(Idempotency::in_memory())
        .with_state(runs.clone());
    (Server::start(router).await, runs)
}

async fn send(server: Server, path: &str, key: &str, headers: &[(&str, &str)]) -> (u16, bool) {
    let headers = headers.iter().copied().chain([(KEY, key)]);
    let answer = server.send(request(Method::POST, path, headers, "")).await;
    (answer.status.as_u16(), answer.is_replay())
}

#[tokio::test]
async fn equal_keys_of_different_tokens_are_separate() {
    let (server, _) = start().await;
    let alice = [("authorization", "Bearer alice")];
    assert_eq!(send(server, "/by-token", "k", &alice).await, (200, false));
    assert_eq!(
        send(server, "/by-token", "k", &[("authorization", "Bearer bob")]).await,
        (200, false)
    );
    assert_eq!(send(server, "/by-token", "k", &alice).await, (200, true));
}

#[tokio::test]
async fn a_key_without_its_scope_is_refused() {
    let (server, runs) = start().await;
    let two = [("authorization", "a"), ("authorization", "a")];
    for headers in [&[][..], &two, &[("authorization", "")]] {
        let all = headers.iter().copied().chain([(KEY, "k")]);
        let answer = server
            .send(request(Method::POST, "/by-token", all, ""))
            .await;
        assert_eq!(
            (answer.status.as_u16(), answer.code().as_str()),
            (401, "idempotency_scope_missing")
        );
        assert!(answer.headers.contains_key("www-authenticate"));
    }
    for headers in [&[][..], &[("x-workspace-id", "a"), ("x-workspace-id", "b")]] {
        let all = headers.iter().copied().chain([(KEY, "k")]);
        let answer = server
            .send(request(Method::POST, "/by-header", all, ""))
            .await;
        assert_eq!(
            (answer.status.as_u16(), answer.code().as_str()),
            (400, "idempotency_scope_missing")
        );
    }
    assert_eq!(runs.started(), 0);
    let without_a_key = server
        .send(request(Method::POST, "/by-token", [], ""))
        .await;
    assert_eq!(without_a_key.status, 200);
}

#[tokio::test]
async fn a_user_scope_replays_after_a_token_refresh() {
    let (server, runs) = start().await;
    assert_eq!(
        send(server, "/by-user", "k", &[("authorization", "alice.1")]).await,
        (200, false)
    );
    assert_eq!(
        send(server, "/by-user", "k", &[("authorization", "alice.2")]).await,
        (200, true)
    );
    assert_eq!(
        send(server, "/by-user", "k", &[("authorization", "bob.1")]).await,
        (200, false)
    );
    assert_eq!(runs.started(), 2);
}

#[tokio::test]
async fn a_revoked_token_gets_no_replay() {
    let (server, _) = start().await;
    send(server, "/by-user", "k", &[("authorization", "alice.1")]).await;
    assert_eq!(
        send(
            server,
            "/by-user",
            "k",
            &[("authorization", "alice.revoked")]
        )
        .await,
        (401, false)
    );
}

#[tokio::test]
async fn a_header_scope_ignores_the_token() {
    let (server, runs) = start().await;
    let of = |workspace, token| [("x-workspace-id", workspace), ("authorization", token)];
    assert_eq!(
        send(server, "/by-header", "k", &of("1", "a")).await,
        (200, false)
    );
    assert_eq!(
        send(server, "/by-header", "k", &of("1", "b")).await,
        (200, true)
    );
    assert_eq!(
        send(server, "/by-header", "k", &of("2", "a")).await,
        (200, false)
    );
    assert_eq!(runs.started(), 2);
}

#[tokio::test]
async fn each_part_of_a_tuple_scope_separates_keys() {
    let (server, runs) = start().await;
    let of = |workspace, token| [("x-workspace-id", workspace), ("authorization", token)];
    for headers in [of("1", "a.1"), of("2", "a.1"), of("1", "b.1")] {
        assert_eq!(send(server, "/by-all", "k", &headers).await, (200, false));
        assert_eq!(send(server, "/by-all", "k", &headers).await, (200, true));
    }
    assert_eq!(runs.started(), 3);
}

#[tokio::test]
async fn scope_and_key_are_not_ambiguous_when_concatenated() {
    let (server, runs) = start().await;
    let pairs = [
        ("a", "x:POST:/by-header:y"),
        ("a:POST:/by-header:x", "y"),
        ("ax", "y"),
        ("a", "xy"),
    ];
    for (scope, key) in pairs {
        assert_eq!(
            send(server, "/by-header", key, &[("x-workspace-id", scope)]).await,
            (200, false)
        );
    }
    assert_eq!(runs.started(), 4);
}

#[tokio::test]
async fn the_last_argument_can_be_the_scope() {
    let (server, runs) = start().await;
    assert_eq!(send(server, "/tenants/a", "k", &[]).await, (200, false));
    assert_eq!(send(server, "/tenants/a", "k", &[]).await, (200, true));
    assert_eq!(send(server, "/tenants/b", "k", &[]).await, (200, false));
    assert_eq!(runs.started(), 2);
}

#[tokio::test]
async fn an_argument_named_token_shadows_the_built_in_token() {
    let (server, runs) = start().await;
    assert_eq!(
        send(server, "/shadowed/a", "k", &[("authorization", "x")]).await,
        (200, false)
    );
    assert_eq!(
        send(server, "/shadowed/a", "k", &[("authorization", "y")]).await,
        (200, true)
    );
    assert_eq!(send(server, "/shadowed/b", "k", &[]).await, (200, false));
    assert_eq!(runs.started(), 2);
}

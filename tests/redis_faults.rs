//! What a request gets when the Redis behind it is full, or holds what cannot be read.
#![cfg(feature = "redis")]

use test_support::servers;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use axum::Router;
use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, Request, StatusCode};
use axum::routing::post;
use axum_idem::store::RedisStore;
use axum_idem::{Idempotency, idempotent};
use http_body_util::BodyExt;
use tower::ServiceExt;

use servers::redis::RedisServer;

/// What really happened.
#[derive(Clone, Default)]
struct Effects(Arc<AtomicUsize>);

impl Effects {
    fn count(&self) -> usize {
        self.0.load(Ordering::SeqCst)
    }
}

#[idempotent(ttl = "1h", scope = global)]
async fn book(State(effects): State<Effects>, body: String) -> (StatusCode, String) {
    let run = effects.0.fetch_add(1, Ordering::SeqCst) + 1;
    (StatusCode::CREATED, format!("{body} {run}"))
}

async fn service(server: &RedisServer, effects: &Effects) -> Router {
    let store = RedisStore::connect(server.url()).await;
    let idem = Idempotency::builder().store(store.expect("redis is there"));
    Router::new()
        .route("/book", post(book))
        .layer(idem.build())
        .with_state(effects.clone())
}

struct Answer {
    status: StatusCode,
    headers: HeaderMap,
    body: String,
}

impl Answer {
    fn is_replay(&self) -> bool {
        self.headers.contains_key("idempotency-replayed")
    }
}

async fn send(service: &Router, key: &str) -> Answer {
    let request = Request::post("/book")
        .header("idempotency-key", key)
        .body(Body::from("trade"))
        .expect("a request");
    let response = service.clone().oneshot(request).await;
    let (parts, body) = response.expect("a router answers").into_parts();
    let body = body.collect().await.expect("a body").to_bytes();
    Answer {
        status: parts.status,
        headers: parts.headers,
        body: String::from_utf8(body.to_vec()).expect("text"),
    }
}

/// Where memory is full, a new key gets 503 and its handler does not run.
#[tokio::test]
async fn a_full_redis_runs_nothing() {
    let (server, effects) = (RedisServer::start(), Effects::default());
    let service = service(&server, &effects).await;
    let kept = send(&service, "kept").await;
    server.command(&["CONFIG", "SET", "maxmemory", "1"]);
    let refused = send(&service, "new").await;
    assert_eq!(refused.status, StatusCode::SERVICE_UNAVAILABLE);
    let again = send(&service, "kept").await;
    assert_eq!((again.is_replay(), again.body), (true, kept.body));
    assert_eq!(effects.count(), 1);
}

/// What stands under a key and cannot be read is 503, and stays.
#[tokio::test]
async fn a_record_of_another_version_runs_nothing() {
    let (server, effects) = (RedisServer::start(), Effects::default());
    let service = service(&server, &effects).await;
    send(&service, "k").await;
    let key = server.command(&["KEYS", "*"]);
    server.command(&["SETRANGE", &key, "0", "\u{9}"]);
    for _ in 0..2 {
        let answer = send(&service, "k").await;
        assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE);
    }
    assert_eq!(effects.count(), 1);
}

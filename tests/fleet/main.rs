//! Two processes behind one Redis or one PostgreSQL keep the promise together.
#![cfg(all(feature = "redis", feature = "postgres"))]

#[path = "../../idem-runtime/tests/servers/mod.rs"]
mod servers;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, Request, StatusCode};
use axum::routing::post;
use axum_idem::store::{PostgresStore, RedisStore, Store};
use axum_idem::{Idempotency, idempotent};
use http_body_util::BodyExt;
use tower::ServiceExt;

use servers::postgres::PostgresServer;
use servers::redis::RedisServer;

/// What really happened, whichever process did it.
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
    tokio::time::sleep(Duration::from_millis(20)).await;
    (StatusCode::CREATED, format!("{body} {run}"))
}

/// A process of its own: it shares nothing with another but the store's server.
fn process(store: impl Store, effects: &Effects) -> Router {
    let idem = Idempotency::builder()
        .store(store)
        .lease(Duration::from_secs(5))
        .build();
    Router::new()
        .route("/book", post(book))
        .layer(idem)
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

async fn send(process: &Router, key: &str) -> Answer {
    let request = Request::post("/book")
        .header("idempotency-key", key)
        .body(Body::from("trade"))
        .expect("a request");
    let response = process.clone().oneshot(request).await;
    let (parts, body) = response.expect("a router answers").into_parts();
    let body = body.collect().await.expect("a body").to_bytes();
    Answer {
        status: parts.status,
        headers: parts.headers,
        body: String::from_utf8(body.to_vec()).expect("text"),
    }
}

async fn redis(server: &RedisServer) -> RedisStore {
    let store = RedisStore::connect(server.url()).await;
    store.expect("redis is there")
}

async fn postgres(server: &PostgresServer) -> PostgresStore {
    let builder = PostgresStore::builder().url(server.url());
    let store = builder.timeout(Duration::from_secs(10)).connect().await;
    store.expect("postgres is there")
}

async fn two_hundred_at_once(processes: [Router; 2], effects: &Effects) {
    let requests: Vec<_> = (0..200)
        .map(|number| {
            let process = processes[number % 2].clone();
            tokio::spawn(async move { send(&process, "same").await })
        })
        .collect();
    let mut bodies = Vec::new();
    for request in requests {
        let answer = request.await.expect("no panic");
        match answer.status {
            StatusCode::CREATED => bodies.push(answer.body),
            status => assert_eq!(status, StatusCode::CONFLICT, "{}", answer.body),
        }
    }
    assert_eq!(effects.count(), 1);
    assert!(!bodies.is_empty());
    assert!(bodies.iter().all(|body| body == "trade 1"), "{bodies:?}");
    for process in &processes {
        let answer = send(process, "same").await;
        assert_eq!((answer.is_replay(), &*answer.body), (true, "trade 1"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn two_processes_behind_one_redis_run_once() {
    let (server, effects) = (RedisServer::start(), Effects::default());
    let processes = [
        process(redis(&server).await, &effects),
        process(redis(&server).await, &effects),
    ];
    two_hundred_at_once(processes, &effects).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_processes_behind_one_postgres_run_once() {
    let (server, effects) = (PostgresServer::start(), Effects::default());
    let processes = [
        process(postgres(&server).await, &effects),
        process(postgres(&server).await, &effects),
    ];
    two_hundred_at_once(processes, &effects).await;
}

#[tokio::test]
async fn a_restart_of_every_process_replays() {
    let effects = Effects::default();
    let redis_server = RedisServer::start();
    let postgres_server = PostgresServer::start();
    let first = send(&process(redis(&redis_server).await, &effects), "k").await;
    let again = send(&process(redis(&redis_server).await, &effects), "k").await;
    assert_eq!((again.is_replay(), again.body), (true, first.body));
    let first = send(&process(postgres(&postgres_server).await, &effects), "k").await;
    let again = send(&process(postgres(&postgres_server).await, &effects), "k").await;
    assert_eq!((again.is_replay(), again.body), (true, first.body));
    assert_eq!(effects.count(), 2);
}

/// Under load, Redis dies and comes back with what it had acknowledged.
#[tokio::test(flavor = "multi_thread")]
async fn redis_may_die_and_come_back() {
    let settings = ["--appendonly", "yes", "--appendfsync", "always"];
    let (mut server, effects) = (RedisServer::with(&settings), Effects::default());
    let process = process(redis(&server).await, &effects);
    let mut acknowledged = Vec::new();
    for number in 0..20 {
        let key = format!("before-{number}");
        let answer = send(&process, &key).await;
        assert_eq!(answer.status, StatusCode::CREATED);
        acknowledged.push((key, answer.body));
    }

    server.kill();
    let before = effects.count();
    for number in 0..5 {
        let answer = send(&process, &format!("down-{number}")).await;
        assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE);
        assert!(answer.headers.contains_key("retry-after"));
    }
    assert_eq!(effects.count(), before, "a handler ran without a claim");

    server.start_again();
    let answer = send(&process, "after").await;
    assert_eq!(answer.status, StatusCode::CREATED, "{}", answer.body);
    let before = effects.count();
    for (key, body) in acknowledged {
        let answer = send(&process, &key).await;
        assert_eq!((answer.is_replay(), answer.body), (true, body), "{key}");
    }
    assert_eq!(effects.count(), before, "an acknowledged key ran again");
}

/// Where memory is full, a new key gets 503 and its handler does not run.
#[tokio::test]
async fn a_full_redis_runs_nothing() {
    let (server, effects) = (RedisServer::start(), Effects::default());
    let process = process(redis(&server).await, &effects);
    let kept = send(&process, "kept").await;
    server.command(&["CONFIG", "SET", "maxmemory", "1"]);
    let refused = send(&process, "new").await;
    assert_eq!(refused.status, StatusCode::SERVICE_UNAVAILABLE);
    let again = send(&process, "kept").await;
    assert_eq!((again.is_replay(), again.body), (true, kept.body));
    assert_eq!(effects.count(), 1);
}

/// What stands under a key and cannot be read is 503, and stays.
#[tokio::test]
async fn a_record_of_another_version_runs_nothing() {
    let (server, effects) = (RedisServer::start(), Effects::default());
    let process = process(redis(&server).await, &effects);
    send(&process, "k").await;
    let key = server.command(&["KEYS", "*"]);
    server.command(&["SETRANGE", &key, "0", "\u{9}"]);
    for _ in 0..2 {
        let answer = send(&process, "k").await;
        assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE);
    }
    assert_eq!(effects.count(), 1);
}

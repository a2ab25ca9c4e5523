//! Tests the response to a request when its Redis is full, killed or stalled, or holds an undecodable
//! record.
#![cfg(feature = "redis")]

use test_support::servers;

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, Request, StatusCode};
use axum::routing::post;
use axum_idem::store::RedisStore;
use axum_idem::{Idempotency, IdempotencyKey, idempotent};
use futures_util::future::join_all;
use http_body_util::BodyExt;
use tower::ServiceExt;

use servers::redis::RedisServer;
use servers::{eventually, eventually_async};

/// Counts the effects of the handlers.
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
    let idem = Idempotency::builder().store(store.expect("Redis accepts connections"));
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

    fn is_unrecorded(&self) -> bool {
        self.headers.contains_key("idempotency-degraded")
    }
}

async fn send(service: &Router, key: &str) -> Answer {
    send_to(service, "/book", key).await
}

async fn send_to(service: &Router, path: &str, key: &str) -> Answer {
    let request = Request::post(path)
        .header("idempotency-key", key)
        .body(Body::from("trade"))
        .expect("a valid request");
    let response = service.clone().oneshot(request).await;
    let (parts, body) = response.expect("a router never fails").into_parts();
    let body = body.collect().await.expect("a body").to_bytes();
    Answer {
        status: parts.status,
        headers: parts.headers,
        body: String::from_utf8(body.to_vec()).expect("UTF-8"),
    }
}

/// A full Redis refuses a new key with 503, and the handler does not run.
#[tokio::test]
async fn a_full_redis_refuses_new_keys_with_503() {
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

/// An undecodable record gets 503 and is not deleted.
#[tokio::test]
async fn an_undecodable_record_is_refused_with_503() {
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

#[idempotent(ttl = "1h", scope = global, on_unknown = hold)]
async fn hold(State(effects): State<Effects>, _: String) -> (StatusCode, String) {
    let run = effects.0.fetch_add(1, Ordering::SeqCst) + 1;
    (StatusCode::CREATED, run.to_string())
}

/// Redis executes a claim late, after the request was refused. Neither the lease nor the ttl of the
/// claim ends during the test. So a retry runs only if the service abandons the claim.
#[tokio::test]
async fn a_claim_that_a_stalled_redis_grants_late_is_abandoned() {
    let (server, effects) = (RedisServer::start(), Effects::default());
    // The store waits longer than the service, so that the claim is not late for Redis.
    let store = RedisStore::builder().url(server.url());
    let store = store.timeout(Duration::from_secs(60)).connect().await;
    let idem = Idempotency::builder()
        .store(store.expect("redis is there"))
        .store_timeout(Duration::from_millis(200))
        .lease(Duration::from_secs(3600));
    let service = Router::new()
        .route("/hold", post(hold))
        .layer(idem.build())
        .with_state(effects.clone());
    assert_eq!(send_to(&service, "/hold", "warm").await.body, "1");
    let granted = || {
        let stats = server.command(&["INFO", "commandstats"]);
        let calls = stats.lines().find_map(|line| {
            let (calls, _) = line.strip_prefix("cmdstat_set:calls=")?.split_once(',')?;
            calls.parse::<u64>().ok()
        });
        calls.unwrap_or_default()
    };
    let before = granted();
    server.stall();
    let refused = send_to(&service, "/hold", "k").await;
    assert_eq!(refused.status, StatusCode::SERVICE_UNAVAILABLE);
    server.go_on();
    eventually("the late claim", || (granted() > before).then_some(()));
    let retry = eventually_async("a retry that runs", async || {
        let retry = send_to(&service, "/hold", "k").await;
        (retry.status != StatusCode::CONFLICT).then_some(retry)
    });
    let retry = retry.await;
    assert_eq!((retry.status, &*retry.body), (StatusCode::CREATED, "2"));
}

/// How often the handler of each key has run.
type Runs = Arc<Mutex<HashMap<String, usize>>>;

#[idempotent(ttl = "1h", scope = global)]
async fn trade(key: IdempotencyKey, State(runs): State<Runs>, _: String) -> (StatusCode, String) {
    let key = key.to_string();
    let run = {
        let mut runs = runs.lock().expect("no panic");
        let run = runs.entry(key.clone()).or_default();
        *run += 1;
        *run
    };
    // At the time of the kill, some requests are inside their handler and some after it.
    tokio::time::sleep(Duration::from_millis(20)).await;
    (StatusCode::CREATED, format!("{key} {run}"))
}

/// Sends one key after another until each key has a response. Sends each request twice at the same
/// time.
async fn trader(service: Router, number: usize, is_over: Arc<AtomicBool>) -> Vec<(String, Answer)> {
    let mut acknowledged = Vec::new();
    for order in 0.. {
        let key = format!("{number}-{order}");
        loop {
            if is_over.load(Ordering::SeqCst) {
                return acknowledged;
            }
            let twice = [(); 2].map(|()| send_to(&service, "/trade", &key));
            let answers = join_all(twice).await.into_iter();
            let mut responses = answers.filter(|answer| answer.status == StatusCode::CREATED);
            if let Some(response) = responses.next() {
                acknowledged.push((key, response));
                break;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
    acknowledged
}

/// Tests an outage under load that is longer than a lease. Every client gets its response again after
/// Redis has been back for the same time, and no key runs twice.
async fn no_response_is_lost(outage: impl AsyncFnOnce(RedisServer, Duration) -> RedisServer) {
    let seconds = std::env::var("IDEM_OUTAGE_SECONDS");
    let seconds = seconds.map_or(3, |text| text.parse().expect("a number"));
    let length = Duration::from_secs(seconds);
    // With `everysec`, Redis replies before it writes to the file while an earlier fsync still runs.
    // A kill at that time loses claims that Redis has acknowledged.
    let server = RedisServer::with(&["--appendonly", "yes", "--appendfsync", "always"]);
    let store = RedisStore::connect(server.url()).await;
    let idem = Idempotency::builder().store(store.expect("Redis accepts connections"));
    let idem = idem.lease(Duration::from_secs(2)).build();
    let runs = Runs::default();
    let service = Router::new()
        .route("/trade", post(trade))
        .layer(idem)
        .with_state(runs.clone());
    let is_over = Arc::new(AtomicBool::new(false));
    let traders: Vec<_> = (0..32)
        .map(|number| tokio::spawn(trader(service.clone(), number, is_over.clone())))
        .collect();
    tokio::time::sleep(Duration::from_secs(1)).await;
    let _server = outage(server, length).await;
    tokio::time::sleep(length).await;
    is_over.store(true, Ordering::SeqCst);
    let mut acknowledged = Vec::new();
    for trader in traders {
        acknowledged.extend(trader.await.expect("no panic"));
    }
    let late = acknowledged.iter().filter(|(_, it)| it.is_unrecorded());
    let late = late.count();
    assert!(
        late > 0,
        "no response was late, so the outage tested nothing"
    );
    for (key, first) in &acknowledged {
        let retry = send_to(&service, "/trade", key).await;
        let (status, body) = (retry.status, &retry.body);
        assert_eq!((status, body), (StatusCode::CREATED, &first.body));
        assert!(retry.is_replay(), "{key} ran again");
        assert!(!retry.is_unrecorded(), "{key} is still not in the store");
    }
    let runs = runs.lock().expect("no panic");
    let again: Vec<_> = runs.iter().filter(|(_, runs)| **runs > 1).collect();
    println!(
        "{} responses, {late} of them late, all replayed after an outage of {seconds} s; {} keys ran, {} \
         of them twice",
        acknowledged.len(),
        runs.len(),
        again.len()
    );
    assert!(again.is_empty(), "{again:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_redis_loses_no_response_under_load() {
    no_response_is_lost(async |mut server, length| {
        server.kill();
        tokio::time::sleep(length).await;
        let start_again = move || {
            server.start_again();
            server
        };
        let started = tokio::task::spawn_blocking(start_again).await;
        started.expect("no panic")
    })
    .await;
}

/// Redis later executes the commands that it received during the stall. Some belong to requests that
/// were refused long ago.
#[tokio::test(flavor = "multi_thread")]
async fn a_stalled_redis_loses_no_response_under_load() {
    no_response_is_lost(async |server, length| {
        server.stall();
        tokio::time::sleep(length).await;
        server.go_on();
        server
    })
    .await;
}

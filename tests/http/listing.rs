//! What an operator learns about many keys at once, and how a customer's error leads to a record.

use std::time::{Duration, SystemTime};

use axum::Router;
use axum::extract::{FromRequestParts, State};
use axum::http::request::Parts;
use axum::http::{Method, Response, StatusCode};
use axum::routing::post;
use axum_idem::store::{MemoryStore, Page, Query, StateKind, Summary};
use axum_idem::{Idempotency, RecordId, Scope, idempotent};
use tower_http::catch_panic::CatchPanicLayer;

use crate::support::{Answer, Runs, Server, post_bytes, request};

#[idempotent(scope = token)]
async fn pay(State(runs): State<Runs>) -> String {
    format!("{:0>100}", runs.count())
}

#[idempotent(scope = token, on_unknown = hold)]
async fn panics(State(_): State<Runs>) -> String {
    panic!("the outcome is unknown")
}

#[idempotent(scope = token)]
async fn slow(State(runs): State<Runs>) -> String {
    runs.pass().await.to_string()
}

#[idempotent(scope = global)]
async fn shared(State(runs): State<Runs>) -> String {
    format!("{:0>100}", runs.count())
}

struct User(String);

impl User {
    /// Serves the attribute and the operator.
    fn scope(&self) -> Scope {
        Scope::new().value(&self.0)
    }
}

impl<S: Send + Sync> FromRequestParts<S> for User {
    type Rejection = StatusCode;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Self::Rejection> {
        let user = parts.headers.get("x-user").ok_or(StatusCode::FORBIDDEN)?;
        Ok(Self(
            user.to_str().map_err(|_| StatusCode::FORBIDDEN)?.to_owned(),
        ))
    }
}

#[idempotent(scope = user.scope())]
async fn of_user(user: User, State(runs): State<Runs>) -> String {
    format!("{} {}", user.0, runs.count())
}

async fn start(idem: Idempotency) -> (Server, Runs, Idempotency) {
    let runs = Runs::default();
    let router = Router::new()
        .route("/pay", post(pay))
        .route("/panics", post(panics))
        .route("/slow", post(slow))
        .route("/shared", post(shared))
        .route("/user", post(of_user))
        .layer(CatchPanicLayer::new())
        .layer(idem.clone())
        .with_state(runs.clone());
    (Server::start(router).await, runs, idem)
}

fn alice() -> Scope {
    Scope::new().token("Bearer alice")
}

async fn by(server: Server, user: &str, path: &str, key: &str) -> Answer {
    let token = format!("Bearer {user}");
    let headers = [("idempotency-key", key), ("authorization", &token)];
    server.send(request(Method::POST, path, headers, "")).await
}

async fn list(idem: &Idempotency, query: Query) -> Vec<Summary> {
    let Page { entries, next, .. } = idem.list(query).await.expect("memory lists");
    assert!(next.is_none());
    entries
}

#[tokio::test]
async fn an_unknown_outcome_is_found_with_its_endpoint_trace_and_label() {
    const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
    let idem = Idempotency::builder()
        .namespace("test")
        .label(|request, key| {
            let customer = request.headers().get("x-customer")?.to_str().ok()?;
            Some(format!("{customer} {}", key.len()))
        })
        .build();
    let (server, _, idem) = start(idem).await;
    let before = SystemTime::now();
    let parent = format!("00-{TRACE}-00f067aa0ba902b7-01");
    let headers = [
        ("idempotency-key", "inv-2291"),
        ("authorization", "Bearer alice"),
        ("traceparent", &parent),
        ("x-customer", "acme"),
    ];
    let first = request(Method::POST, "/panics", headers, "");
    assert_eq!(server.send(first).await.status, 500);
    assert_eq!(server.post("/pay", "another", "").await.status, 200);

    let unknown = list(&idem, Query::all().state(StateKind::Unknown)).await;
    let [unknown] = &unknown[..] else {
        panic!("one outcome is unknown: {unknown:?}");
    };
    assert!(unknown.origin.endpoint().ends_with("listing::panics"));
    assert_eq!(unknown.origin.label(), Some("acme 8"));
    let trace_id = unknown.origin.trace_id().expect("it was sent");
    assert_eq!(trace_id.to_string(), TRACE);
    assert!(unknown.created_at >= before && unknown.created_at <= SystemTime::now());
    assert_eq!(unknown.id, idem.record_id(&alice(), "inv-2291"));
    assert_eq!(unknown.id.scope_id(), idem.scope_id(&alice()));

    // The error that the customer sees leads to the record.
    let retry = server.post("/panics", "inv-2291", "").await;
    assert_eq!(retry.code(), "idempotency_outcome_unknown");
    let problem: serde_json::Value = serde_json::from_slice(&retry.body).expect("JSON");
    let instance = problem["instance"].as_str().expect("a URN");
    let id: RecordId = instance.parse().expect("the URN of a record");
    assert_eq!(id, unknown.id);
    let resolved = Response::new("resolved".into());
    let resolved = idem.resolve(id, resolved, Duration::from_secs(60)).await;
    assert!(resolved.expect("memory resolves"));
    let retry = server.post("/panics", "inv-2291", "").await;
    assert_eq!((retry.text(), retry.is_replay()), ("resolved", true));
    let stats = idem.stats().await.expect("memory counts");
    assert_eq!((stats.unknown.value, stats.recorded.value), (0, 2));
}

#[tokio::test]
async fn a_label_function_that_panics_does_not_fail_the_request() {
    let idem = Idempotency::builder().label(|_, _| panic!("no label"));
    let (server, _, idem) = start(idem.build()).await;
    assert_eq!(server.post("/pay", "k", "").await.status, 200);
    let [entry] = &list(&idem, Query::all()).await[..] else {
        panic!("one record");
    };
    assert_eq!(entry.origin.label(), None);
}

#[tokio::test]
async fn a_scope_function_serves_the_attribute_and_the_operator() {
    let (server, _, idem) = start(Idempotency::in_memory()).await;
    let headers = [("idempotency-key", "k"), ("x-user", "alice")];
    let answer = server
        .send(request(Method::POST, "/user", headers, ""))
        .await;
    assert_eq!(answer.text(), "alice 1");
    let id = idem.record_id(&User("alice".to_owned()).scope(), "k");
    let entry = idem.look_up(id).await.expect("memory looks up");
    assert!(entry.is_some());
}

#[tokio::test]
async fn nothing_of_a_forgotten_caller_remains() {
    let (server, runs, idem) = start(Idempotency::builder().namespace("test").build()).await;
    assert_eq!(by(server, "alice", "/pay", "paid").await.status, 200);
    assert_eq!(by(server, "alice", "/panics", "lost").await.status, 500);
    let stream = server.write(post_bytes("/slow", "\"runs\"", "")).await;
    runs.until_started(2).await;
    assert_eq!(by(server, "bob", "/pay", "paid").await.status, 200);

    let of_alice = || Query::all().scope(idem.scope_id(&alice()));
    assert_eq!(list(&idem, of_alice()).await.len(), 3);
    assert_eq!(idem.forget_scope(&alice()).await.expect("memory"), 3);
    assert!(list(&idem, of_alice()).await.is_empty());
    for key in ["paid", "lost", "runs"] {
        let id = idem.record_id(&alice(), key);
        let entry = idem.look_up(id).await.expect("memory looks up");
        assert!(entry.is_none(), "{key}: {entry:?}");
    }
    assert_eq!(idem.forget_scope(&alice()).await.expect("memory"), 0);

    // A handler that still runs leaves nothing behind.
    runs.open(1);
    drop(stream);
    idem.drain(Duration::from_secs(30)).await;
    assert!(list(&idem, of_alice()).await.is_empty());
    assert!(!by(server, "alice", "/pay", "paid").await.is_replay());
    assert!(by(server, "bob", "/pay", "paid").await.is_replay());
}

/// A record that the store did not accept in time is in this process only.
#[cfg(feature = "testing")]
#[tokio::test]
async fn a_forgotten_caller_has_no_record_in_this_process_either() {
    use axum_idem::testing::{Fault, FaultStore, Operation};

    let store = FaultStore::new(MemoryStore::default());
    store.script(Operation::Complete, [Fault::ErrBefore; 1_000]);
    let idem = Idempotency::builder().store(store.clone()).build();
    let (server, _, idem) = start(idem).await;
    assert!(by(server, "alice", "/pay", "k").await.is_unrecorded());
    assert!(by(server, "alice", "/pay", "k").await.is_replay());
    assert_eq!(idem.forget_scope(&alice()).await.expect("memory"), 1);
    let again = by(server, "alice", "/pay", "k").await;
    assert!(!again.is_replay(), "{again:?}");
    store.heal();
}

#[tokio::test]
async fn one_caller_cannot_fill_the_store_for_everybody() {
    let store = MemoryStore::builder().max_bytes(60_000).max_share(0.25);
    let idem = Idempotency::builder().store(store.build()).build();
    let (server, _, idem) = start(idem).await;
    let mut taken = 0;
    let refused = loop {
        let answer = by(server, "alice", "/pay", &taken.to_string()).await;
        if answer.status != 200 {
            break answer;
        }
        taken += 1;
        assert!(taken < 1_000, "the share has no end");
    };
    assert_eq!(
        (refused.status.as_u16(), refused.code().as_str()),
        (503, "idempotency_share")
    );
    assert!(refused.headers.contains_key("retry-after"));
    assert!(taken > 10, "{taken} records");
    for key in 0..taken {
        let replay = by(server, "alice", "/pay", &key.to_string()).await;
        assert!(replay.is_replay(), "{key}");
    }
    assert_eq!(by(server, "bob", "/pay", "0").await.status, 200);

    // What everybody shares has no share of its own.
    let mut shared = 0;
    let full = loop {
        let answer = by(server, "alice", "/shared", &shared.to_string()).await;
        if answer.status != 200 {
            break answer.code();
        }
        shared += 1;
    };
    assert_eq!(full, "idempotency_capacity");
    assert!(shared > 2 * taken, "{shared} and {taken} records");

    // What is forgotten frees the share.
    idem.forget_scope(&alice()).await.expect("memory");
    assert_eq!(by(server, "alice", "/pay", "new").await.status, 200);
}

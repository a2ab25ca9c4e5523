//! Tests requests that take over a lapsed claim and then do not run the handler. The outcome stays
//! unknown: the key must not become free for a first attempt or for another request.

use std::time::Duration;

use axum::Router;
use axum::extract::{FromRequest, Request, State};
use axum::http::StatusCode;
use axum::routing::post;
use axum_idem::store::{Entry, MemoryStore};
use axum_idem::testing::Fault::DropReply;
use axum_idem::testing::{FaultStore, Operation};
use axum_idem::{Attempt, Idempotency, Scope, idempotent};
use http::Method;
use tower_http::catch_panic::CatchPanicLayer;

use crate::support::{KEY, Runs, Server, eventually, post_bytes, request};

/// A header decides whether this extractor rejects or waits for ever. Headers are not part of the
/// fingerprint.
struct Moody;

impl<S: Sync> FromRequest<S> for Moody {
    type Rejection = StatusCode;

    async fn from_request(request: Request, _: &S) -> Result<Self, Self::Rejection> {
        match request.headers().get("x-mood") {
            Some(mood) if mood == "refuse" => Err(StatusCode::UNPROCESSABLE_ENTITY),
            Some(_) => std::future::pending().await,
            None => Ok(Self),
        }
    }
}

#[idempotent(scope = global)]
async fn panics_once(State(runs): State<Runs>, attempt: Attempt, _: Moody) -> String {
    assert!(runs.count() > 1, "the first run panics");
    attempt.number().to_string()
}

struct Setup {
    server: Server,
    store: FaultStore<MemoryStore>,
    idem: Idempotency,
    runs: Runs,
}

/// Starts a service with a key whose first run has panicked.
async fn start() -> Setup {
    let (store, runs) = (FaultStore::new(MemoryStore::default()), Runs::default());
    let idem = Idempotency::builder().store(store.clone()).build();
    let router = Router::new()
        .route("/", post(panics_once))
        .layer(CatchPanicLayer::new())
        .layer(idem.clone())
        .with_state(runs.clone());
    let server = Server::start(router).await;
    assert_eq!(server.post("/", "k", "").await.status, 500);
    Setup {
        server,
        store,
        idem,
        runs,
    }
}

impl Setup {
    async fn is_unknown_still(&self) {
        let id = self.idem.record_id(&Scope::new(), "k");
        loop {
            match self
                .idem
                .look_up(id)
                .await
                .expect("the memory store does not fail")
            {
                Some(Entry::InFlight { .. }) => tokio::time::sleep(Duration::from_millis(1)).await,
                Some(Entry::Unknown { .. }) => break,
                entry => panic!("the unknown outcome became {entry:?}"),
            }
        }
        let other = self.server.post("/", "k", "another request").await;
        assert_eq!(other.code(), "idempotency_key_reused");
        assert_eq!(self.runs.started(), 1);
        let number: u32 = self
            .server
            .post("/", "k", "")
            .await
            .text()
            .parse()
            .expect("a number");
        assert!(
            number > 1,
            "the run after a panic must not be the first attempt"
        );
    }
}

#[tokio::test]
async fn a_rejection_in_a_takeover_keeps_the_outcome_unknown() {
    let setup = start().await;
    let refused = request(Method::POST, "/", [(KEY, "k"), ("x-mood", "refuse")], "");
    assert_eq!(setup.server.send(refused).await.status, 422);
    setup.is_unknown_still().await;
}

#[tokio::test]
async fn a_disconnect_before_the_handler_keeps_the_outcome_unknown() {
    let setup = start().await;
    let waits = post_bytes("/", "k", "").replacen("\r\n", "\r\nx-mood: wait\r\n", 1);
    let stream = setup.server.write(waits).await;
    eventually("the request claims", || {
        setup.store.calls(Operation::Claim) == 2
    })
    .await;
    drop(stream);
    setup.is_unknown_still().await;
}

#[tokio::test]
async fn a_takeover_whose_client_left_keeps_the_outcome_unknown() {
    let setup = start().await;
    setup.store.script(Operation::Claim, [DropReply]);
    let stream = setup.server.write(post_bytes("/", "k", "")).await;
    eventually("the request claims", || {
        setup.store.calls(Operation::Claim) == 2
    })
    .await;
    drop(stream);
    // The first abandon follows the panic. The second abandon follows the disconnect.
    eventually("the takeover is abandoned", || {
        setup.store.calls(Operation::Abandon) == 2
    })
    .await;
    setup.is_unknown_still().await;
}

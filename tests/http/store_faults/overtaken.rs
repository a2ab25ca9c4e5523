//! The client of an overtaken attempt gets the response of the attempt that has taken over.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use axum::Router;
use axum::extract::State;
use axum::http::{HeaderValue, StatusCode};
use axum::middleware::map_response;
use axum::response::Response;
use axum::routing::post;
use axum_idem::store::MemoryStore;
use axum_idem::testing::Fault::ErrBefore;
use axum_idem::testing::FaultStore;
use axum_idem::testing::Operation::{LookUp, Renew};
use axum_idem::{Attempt, Idempotency, Scope, idempotent};
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;

use super::SHORT;
use crate::support::{Answer, Server, eventually};

/// A gate for each of two attempts.
#[derive(Clone)]
struct Gates {
    semaphores: Arc<[Semaphore; 2]>,
    started: Arc<AtomicUsize>,
    lost: Arc<AtomicUsize>,
}

#[idempotent(scope = global)]
async fn work(State(gates): State<Gates>, attempt: Attempt, body: String) -> (StatusCode, String) {
    let number = attempt.number();
    gates.started.fetch_add(1, Ordering::SeqCst);
    let lost = gates.lost.clone();
    tokio::spawn(async move {
        attempt.lost().await;
        lost.fetch_add(1, Ordering::SeqCst);
    });
    if body.is_empty() {
        let gate = &gates.semaphores[number as usize - 1];
        gate.acquire().await.expect("open").forget();
    }
    (StatusCode::CREATED, format!("attempt {number}{body}"))
}

struct Setup {
    server: Server,
    gates: Gates,
    store: FaultStore<MemoryStore>,
    idem: Idempotency,
    first: JoinHandle<Answer>,
    second: JoinHandle<Answer>,
}

/// Two attempts at one key run. The lease of the first could not be renewed.
async fn start() -> Setup {
    let store = FaultStore::new(MemoryStore::default());
    store.script(Renew, std::iter::repeat_n(ErrBefore, 1_000));
    let idem = Idempotency::builder()
        .store(store.clone())
        .lease(SHORT)
        .build();
    let gates = Gates {
        semaphores: Arc::new([Semaphore::new(0), Semaphore::new(0)]),
        started: Arc::default(),
        lost: Arc::default(),
    };
    let mark = map_response(|mut response: Response| async {
        let headers = response.headers_mut();
        headers.insert("x-layer", HeaderValue::from_static("passed"));
        response
    });
    let router = Router::new()
        .route("/", post(work))
        .layer(mark)
        .layer(idem.clone())
        .with_state(gates.clone());
    let server = Server::start(router).await;
    let first = tokio::spawn(async move { server.post("/", "k", "").await });
    let started = gates.started.clone();
    eventually("the first attempt runs", || {
        started.load(Ordering::SeqCst) == 1
    })
    .await;
    let second = tokio::spawn(async move {
        loop {
            let answer = server.post("/", "k", "").await;
            if answer.status != 409 {
                return answer;
            }
        }
    });
    eventually("the second attempt runs", || {
        started.load(Ordering::SeqCst) == 2
    })
    .await;
    Setup {
        server,
        gates,
        store,
        idem,
        first,
        second,
    }
}

impl Setup {
    fn open(&self, attempt: usize) {
        self.gates.semaphores[attempt - 1].add_permits(1);
    }
}

#[tokio::test]
async fn the_client_of_an_overtaken_attempt_gets_the_record_of_the_winner() {
    let setup = start().await;
    setup.open(2);
    let second = setup.second.await.expect("no panic");
    assert_eq!((second.text(), second.is_replay()), ("attempt 2", false));
    setup.gates.semaphores[0].add_permits(1);
    let first = setup.first.await.expect("no panic");
    assert_eq!(
        (first.status.as_u16(), first.text(), first.is_replay()),
        (201, "attempt 2", true)
    );
    assert!(setup.server.post("/", "k", "").await.is_replay());
}

#[tokio::test]
async fn the_client_of_an_overtaken_attempt_has_to_wait_while_the_winner_runs() {
    let setup = start().await;
    setup.open(1);
    let first = setup.first.await.expect("no panic");
    assert_eq!(first.code(), "idempotency_key_in_flight");
    assert!(first.headers.contains_key("retry-after"));
    setup.gates.semaphores[1].add_permits(1);
    assert_eq!(setup.second.await.expect("no panic").text(), "attempt 2");
    let retry = setup.server.post("/", "k", "").await;
    assert_eq!((retry.text(), retry.is_replay()), ("attempt 2", true));
}

/// An attempt that learns in time that it was overtaken sends the winner's response through its layers.
#[tokio::test]
async fn the_record_of_the_winner_passes_the_layers_of_an_attempt_that_knows_of_its_loss() {
    let setup = start().await;
    setup.open(2);
    setup.second.await.expect("no panic");
    setup.store.heal();
    eventually("the first attempt learns of its loss", || {
        setup.gates.lost.load(Ordering::SeqCst) == 1
    })
    .await;
    setup.gates.semaphores[0].add_permits(1);
    let first = setup.first.await.expect("no panic");
    assert_eq!((first.text(), first.is_replay()), ("attempt 2", true));
    assert_eq!(first.headers["x-layer"], "passed");
}

#[tokio::test]
async fn an_overtaken_attempt_sends_its_own_response_when_the_store_has_no_record_or_fails() {
    for fails in [false, true] {
        let setup = start().await;
        setup.open(2);
        setup.second.await.expect("no panic");
        if fails {
            setup.store.script(LookUp, [ErrBefore; 10]);
        } else {
            let id = setup.idem.record_id(&Scope::new(), "k");
            assert!(setup.idem.forget(id).await.expect("memory does not fail"));
        }
        setup.gates.semaphores[0].add_permits(1);
        let first = setup.first.await.expect("no panic");
        assert_eq!((first.text(), first.is_replay()), ("attempt 1", false));
    }
}

/// After an operator has forgotten the key, another request may use it.
#[tokio::test]
async fn the_client_of_an_overtaken_attempt_does_not_get_the_response_to_another_request() {
    let setup = start().await;
    setup.open(2);
    setup.second.await.expect("no panic");
    let id = setup.idem.record_id(&Scope::new(), "k");
    assert!(setup.idem.forget(id).await.expect("memory does not fail"));
    let other = setup.server.post("/", "k", " of another request").await;
    assert_eq!(other.text(), "attempt 1 of another request");
    setup.gates.semaphores[0].add_permits(1);
    let first = setup.first.await.expect("no panic");
    assert_eq!((first.text(), first.is_replay()), ("attempt 1", false));
}

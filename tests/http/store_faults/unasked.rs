//! Tests which requests do not reach the store.

use axum::Router;
use axum::extract::State;
use axum::http::{Method, StatusCode};
use axum::routing::any;
use axum_idem::store::MemoryStore;
use axum_idem::testing::{FaultStore, Operation};
use axum_idem::{Idempotency, idempotent};

use crate::support::{KEY, Runs, Server, request};

#[idempotent(scope = global)]
async fn optional(State(runs): State<Runs>) -> (StatusCode, String) {
    (StatusCode::CREATED, runs.count().to_string())
}

#[idempotent(scope = global, required)]
async fn required(State(runs): State<Runs>) -> (StatusCode, String) {
    (StatusCode::CREATED, runs.count().to_string())
}

#[idempotent(scope = token)]
async fn by_token(State(runs): State<Runs>) -> (StatusCode, String) {
    (StatusCode::CREATED, runs.count().to_string())
}

struct Setup {
    server: Server,
    runs: Runs,
    store: FaultStore<MemoryStore>,
}

async fn start() -> Setup {
    let (runs, store) = (Runs::default(), FaultStore::new(MemoryStore::default()));
    let router = Router::new()
        .route("/optional", any(optional))
        .route("/required", any(required))
        .route("/by-token", any(by_token))
        .layer(Idempotency::builder().store(store.clone()).build())
        .with_state(runs.clone());
    let server = Server::start(router).await;
    Setup {
        server,
        runs,
        store,
    }
}

impl Setup {
    /// The number of all calls of the store.
    fn calls(&self) -> usize {
        let calls = Operation::ALL.map(|operation| self.store.calls(operation));
        calls.iter().sum()
    }
}

#[tokio::test]
async fn safe_methods_neither_claim_nor_record_nor_replay() {
    let setup = start().await;
    let safe = [Method::GET, Method::HEAD, Method::OPTIONS, Method::TRACE];
    for path in ["/optional", "/required", "/by-token"] {
        for method in safe.iter().chain(&safe) {
            let run = setup.runs.started() + 1;
            let keyed = request(method.clone(), path, [(KEY, "k")], "");
            let answer = setup.server.send(keyed).await;
            assert_eq!(answer.status, StatusCode::CREATED, "{method} {path}");
            assert!(!answer.is_replay(), "{method} {path}");
            assert_eq!(setup.runs.started(), run, "{method} {path}");
            if method != Method::HEAD {
                assert_eq!(answer.text(), run.to_string());
            }
        }
    }
    assert_eq!(setup.calls(), 0);
    // The key is still free.
    let first = setup.server.post("/optional", "k", "").await;
    assert!(first.status == 201 && !first.is_replay());
    assert_ne!(setup.calls(), 0);
}

#[tokio::test]
async fn a_request_without_a_usable_key_or_scope_makes_no_store_call() {
    let setup = start().await;
    let keys = |lines: &[&'static str]| -> Vec<_> { lines.iter().map(|it| (KEY, *it)).collect() };
    for (path, headers, status, code) in [
        ("/required", keys(&[]), 400, "idempotency_key_missing"),
        ("/required", keys(&[""]), 400, "idempotency_key_invalid"),
        ("/optional", keys(&["a,b"]), 400, "idempotency_key_invalid"),
        (
            "/optional",
            keys(&["a", "a"]),
            400,
            "idempotency_key_invalid",
        ),
        ("/by-token", keys(&["k"]), 401, "idempotency_scope_missing"),
    ] {
        let sent = request(Method::POST, path, headers.clone(), "");
        let answer = setup.server.send(sent).await;
        let got = (answer.status.as_u16(), answer.code());
        assert_eq!(got, (status, code.to_owned()), "{path} {headers:?}");
    }
    // Without a key, the endpoint runs and keeps nothing.
    for run in ["1", "2"] {
        let unkeyed = request(Method::POST, "/optional", [], "");
        assert_eq!(setup.server.send(unkeyed).await.text(), run);
    }
    assert_eq!((setup.calls(), setup.runs.started()), (0, 2));
}

//! Tests a service with a sealed store: retries while keys are rotated, lost or wrong.

use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::post;
use axum_idem::store::{Entry, Keys, MemoryStore, Query, Sealed, Store};
use axum_idem::{Idempotency, OnStoreError, Scope, idempotent};

use crate::support::{Runs, Server};

const FIRST: [u8; 32] = [1; 32];
const SECOND: [u8; 32] = [2; 32];

#[idempotent(scope = global)]
async fn issue(
    State(runs): State<Runs>,
) -> (StatusCode, [(&'static str, &'static str); 1], String) {
    let token = format!("token-{}", runs.count());
    (StatusCode::CREATED, [("x-issued", "yes")], token)
}

/// Starts one version of the service.
async fn start(store: impl Store, runs: &Runs, choice: OnStoreError) -> Server {
    let idem = Idempotency::builder()
        .store(store)
        .on_store_error(choice)
        .build();
    let router = Router::new()
        .route("/issue", post(issue))
        .layer(idem)
        .with_state(runs.clone());
    Server::start(router).await
}

#[tokio::test]
async fn two_versions_replay_the_records_of_both_keys() {
    let (memory, runs) = (MemoryStore::default(), Runs::default());
    let sealed = |keys| Sealed::around(memory.clone(), keys);
    let before = sealed(Keys::new().primary(1, FIRST).also(2, SECOND));
    let after = sealed(Keys::new().primary(2, SECOND).also(1, FIRST));
    let before = start(before, &runs, OnStoreError::FailClosed).await;
    let after = start(after, &runs, OnStoreError::FailClosed).await;
    for (key, first, second, token) in [
        ("a", &before, &after, "token-1"),
        ("b", &after, &before, "token-2"),
    ] {
        let issued = first.post("/issue", key, "").await;
        assert_eq!((issued.status, issued.text()), (StatusCode::CREATED, token));
        for server in [first, second] {
            let again = server.post("/issue", key, "").await;
            assert!(again.is_replay());
            assert_eq!((again.status, again.text()), (StatusCode::CREATED, token));
            assert_eq!(again.headers["x-issued"], "yes");
        }
    }
    assert_eq!(runs.started(), 2);
}

/// Neither a service that fails closed nor one that fails open runs the handler again.
#[tokio::test]
async fn a_record_that_does_not_open_is_refused_and_never_runs_again() {
    let (memory, runs) = (MemoryStore::default(), Runs::default());
    let sealed = |keys| Sealed::around(memory.clone(), keys);
    let right = start(
        sealed(Keys::new().primary(1, FIRST)),
        &runs,
        OnStoreError::FailClosed,
    )
    .await;
    assert_eq!(right.post("/issue", "k", "").await.text(), "token-1");
    for choice in [OnStoreError::FailClosed, OnStoreError::FailOpen] {
        let missing = start(sealed(Keys::new().primary(2, SECOND)), &runs, choice).await;
        let wrong = start(sealed(Keys::new().primary(1, SECOND)), &runs, choice).await;
        let none = start(memory.clone(), &runs, choice).await;
        for (server, why) in [(missing, "missing"), (wrong, "wrong"), (none, "none")] {
            for _ in 0..2 {
                let refused = server.post("/issue", "k", "").await;
                assert_eq!(refused.status, StatusCode::SERVICE_UNAVAILABLE, "{why}");
                assert_eq!(refused.code(), "idempotency_store_unavailable", "{why}");
            }
        }
    }
    assert_eq!(runs.started(), 1);
    assert!(
        right.post("/issue", "k", "").await.is_replay(),
        "the record stays"
    );
}

/// Neither the record id, nor the scope id, nor the fingerprint of the stored entry is the digest without the secret.
#[tokio::test]
async fn a_service_with_an_id_secret_stores_no_digest_that_can_be_guessed() {
    let runs = Runs::default();
    let start = async |secret: Option<[u8; 32]>, memory: &MemoryStore| {
        let mut idem = Idempotency::builder().store(memory.clone());
        if let Some(secret) = secret {
            idem = idem.id_secret(secret);
        }
        // The order of the two settings does not matter.
        let idem = idem.namespace("shop").build();
        let router = Router::new()
            .route("/issue", post(issue))
            .layer(idem.clone())
            .with_state(runs.clone());
        (Server::start(router).await, idem)
    };
    let entry = async |secret| {
        let memory = MemoryStore::default();
        let (server, idem) = start(secret, &memory).await;
        assert_eq!(server.post("/issue", "k", "1").await.status, 201);
        assert!(server.post("/issue", "k", "1").await.is_replay());
        assert_eq!(server.post("/issue", "k", "2").await.status, 409);
        let page = memory.list(Query::all()).await.expect("a page");
        let id = page.entries[0].id;
        assert_eq!(id, idem.record_id(&Scope::new(), "k"));
        assert_eq!(id.scope_id(), idem.scope_id(&Scope::new()));
        match memory.look_up(id).await {
            Ok(Some(Entry::Recorded { record, .. })) => (id, record.fingerprint()),
            other => panic!("there is no record: {other:?}"),
        }
    };
    let all = [
        entry(None).await,
        entry(Some(FIRST)).await,
        entry(Some(SECOND)).await,
    ];
    for (one, other) in [(0, 1), (0, 2), (1, 2)] {
        let (one, other) = (all[one], all[other]);
        assert_ne!(one.0.scope_id(), other.0.scope_id());
        assert_ne!(one.0.as_bytes()[16..], other.0.as_bytes()[16..]);
        assert_ne!(one.1, other.1);
    }
    assert_eq!(all[1], entry(Some(FIRST)).await);
}

#[test]
#[should_panic(expected = "an id secret has at least 16 bytes")]
fn a_short_id_secret_is_refused() {
    let _ = Idempotency::builder().id_secret("short");
}

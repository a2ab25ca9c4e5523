//! Duplicates that arrive while the transaction of the first request is open.

use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::post;
use axum_idem::{Attempt, Idempotency, idempotent};

use crate::bank::{Bank, LEASE, Paid, Service, key, store};
use crate::overtaken::{LEVELS, slow};
use crate::servers::postgres::PostgresServer;

/// Waits for the first request, which never ends.
#[idempotent(scope = token, transactional, in_flight = wait("50ms"))]
async fn patient(State(bank): State<Bank>, attempt: Attempt, body: String) -> Paid {
    let mut tx = bank.begin().await?;
    Bank::pay(&mut tx, &body).await?;
    let response = (StatusCode::CREATED, body);
    let response = attempt.record_in(&mut *tx, response).await?;
    bank.runs.pass().await;
    tx.commit().await?;
    Ok(response)
}

/// The transaction has locks on the rows of its claim and of its record. A duplicate needs neither lock, so it does not
/// wait for the commit.
#[tokio::test(flavor = "multi_thread")]
async fn a_duplicate_does_not_wait_for_the_transaction_of_the_first_request() {
    let postgres = PostgresServer::start();
    for level in LEVELS {
        let bank = Bank::open(&postgres.url()).await.isolated(level);
        let settings = Idempotency::builder().store(store(&postgres.url()).await);
        let more = Router::new()
            .route("/slow", post(slow))
            .route("/patient", post(patient));
        let service = Service::with(bank, settings.lease(LEASE), more).await;
        let (server, runs) = (service.server, &service.bank.runs);
        // The first path waits before it has recorded its response, the others afterwards.
        for (ended, path) in ["/gated", "/slow", "/patient"].into_iter().enumerate() {
            let key = key(&format!("{level}{path}"));
            let post = move || {
                let key = key.clone();
                async move { server.post(path, &key, &format!("{level} {path}")).await }
            };
            let first = tokio::spawn(post());
            runs.until_started(ended + 1).await;
            for _ in 0..3 {
                let duplicate = post().await;
                assert_eq!(duplicate.code(), "idempotency_key_in_flight", "{level}");
                assert_eq!(duplicate.headers["retry-after"], "1");
            }
            assert_eq!(runs.finished(), ended, "the transaction is open");
            runs.open(1);
            let first = first.await.expect("no panic");
            assert_eq!(first.status, StatusCode::CREATED, "{first:?}");
            let replay = post().await;
            assert!(
                replay.is_replay() && replay.body == first.body,
                "{replay:?}"
            );
        }
        assert_eq!(runs.started(), 3);
    }
}

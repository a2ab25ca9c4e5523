//! What observers and clients see of a committed record.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::post;
use axum_idem::observe::{AttemptEnd, Observer, Outcome};
use axum_idem::store::{Entry, SqliteStore};
use axum_idem::testing::{Fault, FaultStore, Operation};
use axum_idem::{Attempt, Idempotency, idempotent};
use tempfile::TempDir;

use crate::bank::{Bank, Paid};
use crate::shared::bank;
use crate::support::Server;

#[idempotent(scope = token)]
async fn committed(State(bank): State<Bank>, attempt: Attempt, body: String) -> Paid {
    let mut tx = bank.begin().await?;
    Bank::pay(&mut tx, &body).await?;
    Ok(attempt.commit(tx, (StatusCode::CREATED, body)).await?)
}

/// Rolls back when the body says so.
#[idempotent(scope = token)]
async fn recorded(State(bank): State<Bank>, attempt: Attempt, body: String) -> Paid {
    let mut tx = bank.begin().await?;
    Bank::pay(&mut tx, &body).await?;
    let response = attempt.record_in(&mut *tx, (StatusCode::CREATED, body.clone()));
    let response = response.await?;
    if body == "undone" {
        tx.rollback().await?;
    } else {
        tx.commit().await?;
    }
    Ok(response)
}

/// The outcome of an attempt and the length of its record.
type End = (Outcome, Option<u64>);

#[derive(Clone, Default)]
struct Ends(Arc<Mutex<Vec<End>>>);

impl Observer for Ends {
    fn attempt_ended(&self, end: &AttemptEnd) {
        let end = (end.outcome, end.recorded_bytes);
        self.0.lock().expect("no panic").push(end);
    }
}

struct Setup {
    service: bank::Service<sqlx::Sqlite>,
    faults: FaultStore<SqliteStore>,
    ends: Ends,
    _folder: TempDir,
}

const LEASE: Duration = Duration::from_secs(1);

async fn start() -> Setup {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("bank.db");
    let store = SqliteStore::open(&path).await.expect("the file opens");
    let (faults, ends) = (FaultStore::new(store), Ends::default());
    let idem = Idempotency::builder().store(faults.clone()).lease(LEASE);
    let idem = idem.observer(ends.clone()).build();
    let bank = Bank::open(&path).await;
    let router = Router::new()
        .route("/committed", post(committed))
        .route("/recorded", post(recorded))
        .layer(idem.clone())
        .with_state(bank.clone());
    let server = Server::start(router).await;
    Setup {
        service: bank::Service { server, bank, idem },
        faults,
        ends,
        _folder: folder,
    }
}

impl Setup {
    /// The end of the only attempt since the last call.
    async fn end(&self) -> (Outcome, Option<u64>) {
        assert_eq!(self.service.idem.drain(Duration::from_secs(30)).await, 0);
        let mut ends = std::mem::take(&mut *self.ends.0.lock().expect("no panic"));
        assert_eq!(ends.len(), 1, "{ends:?}");
        ends.remove(0)
    }

    async fn recorded_bytes(&self, key: &str) -> u64 {
        match self.service.entry(key).await {
            Some(Entry::Recorded { record, .. }) => record.as_bytes().len() as u64,
            entry => panic!("{entry:?}"),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_observer_gets_the_length_of_a_committed_record() {
    let setup = start().await;
    for path in ["/committed", "/recorded"] {
        let key = path.trim_matches('/');
        let response = setup.service.server.post(path, key, "paid").await;
        assert_eq!(response.status, StatusCode::CREATED);
        let bytes = setup.recorded_bytes(key).await;
        assert_eq!(setup.end().await, (Outcome::Recorded, Some(bytes)));
    }
}

/// An alert about an unknown outcome would be false.
#[tokio::test(flavor = "multi_thread")]
async fn a_commit_that_is_confirmed_after_its_lease_is_recorded() {
    let setup = start().await;
    let fails = vec![Fault::ErrBefore; 1_000];
    setup.faults.script(Operation::CommitState, fails);
    let response = setup.service.server.post("/recorded", "k", "paid").await;
    assert_eq!(response.status, StatusCode::CREATED);
    assert!(response.is_unrecorded(), "{response:?}");
    tokio::time::sleep(3 * LEASE).await;
    setup.faults.heal();
    let bytes = setup.recorded_bytes("k").await;
    assert_eq!(setup.end().await, (Outcome::Recorded, Some(bytes)));
}

/// A retry runs again, so the client must not take the response for a recorded one.
#[tokio::test(flavor = "multi_thread")]
async fn a_response_whose_record_was_rolled_back_is_marked() {
    let setup = start().await;
    for body in ["undone", "kept"] {
        let response = setup.service.server.post("/recorded", body, body).await;
        assert_eq!(response.status, StatusCode::CREATED);
        assert_eq!(response.is_unrecorded(), body == "undone", "{body}");
    }
}

//! How a lease is kept while its attempt runs. The clock stands still but for what a test waits for.

use std::pin::pin;
use std::time::Duration;

use axum::Router;
use axum::extract::{FromRequest, Request, State};
use axum::http::StatusCode;
use axum::routing::post;
use axum_idem::store::{Entry, MemoryStore, Store};
use axum_idem::testing::Fault::{self, ErrAfter, ErrBefore, Hang};
use axum_idem::testing::{FaultStore, Operation};
use axum_idem::{Idempotency, Scope, idempotent};
use futures_util::FutureExt;
use tokio::runtime::Handle;

use crate::support::{self, Answer, Runs};

const LEASE: Duration = Duration::from_secs(30);

#[idempotent(scope = global)]
async fn slow(State(runs): State<Runs>) -> String {
    runs.pass().await.to_string()
}

/// An extractor that waits at the gate.
struct Slow;

impl FromRequest<Runs> for Slow {
    type Rejection = StatusCode;

    async fn from_request(_: Request, runs: &Runs) -> Result<Self, StatusCode> {
        runs.pass().await;
        Ok(Self)
    }
}

#[idempotent(scope = global)]
async fn extracted(State(runs): State<Runs>, _: Slow) -> String {
    runs.started().to_string()
}

struct Setup {
    router: Router,
    runs: Runs,
    store: FaultStore<MemoryStore>,
    idem: Idempotency,
}

fn start(renewals: impl IntoIterator<Item = Fault>) -> Setup {
    let (runs, store) = (Runs::default(), FaultStore::new(MemoryStore::default()));
    store.script(Operation::Renew, renewals);
    let idem = Idempotency::builder().store(store.clone());
    let idem = idem.lease(LEASE).store_timeout(LEASE).build();
    let router = Router::new()
        .route("/slow", post(slow))
        .route("/extracted", post(extracted))
        .layer(idem.clone())
        .with_state(runs.clone());
    Setup {
        router,
        runs,
        store,
        idem,
    }
}

impl Setup {
    async fn post(&self, path: &str) -> Answer {
        support::exchange(self.router.clone(), support::post(path, "k", "")).await
    }

    async fn is_held(&self) -> bool {
        let id = self.idem.record_id(&Scope::new(), "k");
        let entry = self.store.behind().look_up(id).await;
        matches!(entry, Ok(Some(Entry::InFlight { .. })))
    }
}

/// A stream of buffered requests, for instance, polls none of them while it works on one.
#[tokio::test(start_paused = true)]
async fn a_request_that_nobody_polls_keeps_its_lease() {
    for path in ["/slow", "/extracted"] {
        let setup = start([]);
        let tasks = Handle::current().metrics().num_alive_tasks();
        {
            let mut first = pin!(setup.post(path));
            while setup.runs.started() == 0 {
                assert!(first.as_mut().now_or_never().is_none());
                tokio::task::yield_now().await;
            }
            assert!(first.as_mut().now_or_never().is_none());
            // The first renewal starts a task, and not the first wait.
            assert_eq!(Handle::current().metrics().num_alive_tasks(), tasks);
            tokio::time::sleep(20 * LEASE).await;
            assert!(setup.is_held().await, "{path}");
            let retry = setup.post(path).await;
            assert_eq!(retry.code(), "idempotency_key_in_flight", "{path}");
            setup.runs.open(1);
            assert_eq!(first.await.text(), "1");
        }
        let renewals = setup.store.calls(Operation::Renew);
        assert!(renewals > 50, "{renewals} renewals in 20 leases");
        assert!(setup.post(path).await.is_replay());
        tokio::time::sleep(LEASE).await;
        assert_eq!(setup.store.calls(Operation::Renew), renewals);
        assert_eq!(Handle::current().metrics().num_alive_tasks(), tasks);
        assert_eq!(setup.runs.started(), 1);
    }
}

#[tokio::test(start_paused = true)]
async fn an_extractor_may_take_longer_than_its_lease() {
    let setup = start([]);
    let mut first = pin!(setup.post("/extracted"));
    let ended = tokio::time::timeout(10 * LEASE, first.as_mut()).await;
    assert!(ended.is_err(), "it waits");
    assert!(setup.is_held().await);
    setup.runs.open(1);
    assert_eq!(first.await.text(), "1");
    assert!(setup.post("/extracted").await.is_replay());
}

/// Neither an error nor a reply that never comes makes the lease lapse, not even for a moment.
#[tokio::test(start_paused = true)]
async fn a_renewal_that_fails_ends_nothing() {
    for faults in [[ErrBefore, ErrBefore], [ErrBefore, ErrAfter], [Hang, Hang]] {
        let setup = start(faults);
        let mut first = pin!(setup.post("/slow"));
        for _ in 0..100 {
            let ended = tokio::time::timeout(LEASE / 50, first.as_mut()).await;
            assert!(ended.is_err(), "it waits");
            assert!(setup.is_held().await, "{faults:?}");
        }
        assert!(setup.store.calls(Operation::Renew) >= 4);
        setup.runs.open(1);
        assert_eq!(first.await.text(), "1");
        assert!(setup.post("/slow").await.is_replay());
    }
}

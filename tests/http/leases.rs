//! Tests how a lease is kept while its attempt runs. The clock is paused, so time passes only while a
//! test waits.

use std::pin::pin;
use std::time::Duration;

use axum::Router;
use axum::extract::{FromRequest, Request, State};
use axum::http::StatusCode;
use axum::routing::post;
use axum_idem::store::{Entry, MemoryStore, Store};
use axum_idem::testing::Fault::{self, DelayReply, ErrAfter, ErrBefore, Hang};
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

/// An extractor that waits at the gate of `Runs`.
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

/// An extractor that never ends.
struct Endless;

/// When it is dropped, waits for a release of the key by another thread, and counts it as a run.
struct Watch(MemoryStore, Runs);

impl Drop for Watch {
    fn drop(&mut self) {
        let id = Idempotency::in_memory().record_id(&Scope::new(), "k");
        for _ in 0..10 {
            let entry = self.0.look_up(id).now_or_never();
            if !matches!(entry, Some(Ok(Some(Entry::InFlight { .. })))) {
                self.1.count();
                return;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

impl FromRequest<Watched> for Endless {
    type Rejection = StatusCode;

    async fn from_request(_: Request, Watched(store, runs): &Watched) -> Result<Self, StatusCode> {
        let _watch = Watch(store.clone(), runs.clone());
        std::future::pending().await
    }
}

#[derive(Clone)]
struct Watched(MemoryStore, Runs);

#[idempotent(scope = global)]
async fn endless(_: Endless) {}

/// A handler that finishes at its first poll.
#[idempotent(scope = global)]
async fn at_once(State(runs): State<Runs>) -> String {
    runs.count().to_string()
}

struct Setup {
    router: Router,
    runs: Runs,
    store: FaultStore<MemoryStore>,
    idem: Idempotency,
}

fn start(renewals: impl IntoIterator<Item = Fault>) -> Setup {
    start_waiting(renewals, LEASE)
}

/// Starts a service with this store timeout.
fn start_waiting(renewals: impl IntoIterator<Item = Fault>, store_timeout: Duration) -> Setup {
    let (runs, store) = (Runs::default(), FaultStore::new(MemoryStore::default()));
    store.script(Operation::Renew, renewals);
    let idem = Idempotency::builder().store(store.clone());
    let idem = idem.lease(LEASE).store_timeout(store_timeout).build();
    let router = Router::new()
        .route("/slow", post(slow))
        .route("/at-once", post(at_once))
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

/// Awaits the response of a handler that does not wait at the gate.
async fn soon(response: impl Future<Output = Answer>) -> Answer {
    let response = tokio::time::timeout(10 * LEASE, response).await;
    response.expect("no handler waits at the gate")
}

/// Some callers, such as a stream of buffered requests, poll no request while they work on another one.
#[tokio::test(start_paused = true)]
async fn an_unpolled_request_keeps_its_lease() {
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
            // No task exists yet. The first renewal spawns a task.
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
async fn an_extractor_may_run_longer_than_the_lease() {
    let setup = start([]);
    let mut first = pin!(setup.post("/extracted"));
    let ended = tokio::time::timeout(10 * LEASE, first.as_mut()).await;
    assert!(ended.is_err(), "the extractor waits");
    assert!(setup.is_held().await);
    setup.runs.open(1);
    assert_eq!(first.await.text(), "1");
    assert!(setup.post("/extracted").await.is_replay());
}

/// Neither an error nor a missing reply lets the lease lapse, not even for a moment.
#[tokio::test(start_paused = true)]
async fn failed_renewals_do_not_end_the_lease() {
    for faults in [[ErrBefore, ErrBefore], [ErrBefore, ErrAfter], [Hang, Hang]] {
        let setup = start(faults);
        let mut first = pin!(setup.post("/slow"));
        for _ in 0..100 {
            let ended = tokio::time::timeout(LEASE / 50, first.as_mut()).await;
            assert!(ended.is_err(), "the handler waits");
            assert!(setup.is_held().await, "{faults:?}");
        }
        assert!(setup.store.calls(Operation::Renew) >= 4);
        setup.runs.open(1);
        assert_eq!(first.await.text(), "1");
        assert!(setup.post("/slow").await.is_replay());
    }
}

/// The reply that grants the claim arrives after the lease has lapsed and another request has taken
/// over.
#[tokio::test(start_paused = true)]
async fn a_late_grant_does_not_run_while_the_next_attempt_runs() {
    let setup = start_waiting([], 10 * LEASE);
    setup
        .store
        .script(Operation::Claim, [DelayReply(LEASE + LEASE / 3)]);
    let mut first = pin!(setup.post("/slow"));
    let ended = tokio::time::timeout(LEASE + LEASE / 6, first.as_mut()).await;
    assert!(ended.is_err(), "the request waits for the store");
    let mut second = pin!(setup.post("/slow"));
    assert!(
        tokio::time::timeout(LEASE / 12, second.as_mut())
            .await
            .is_err()
    );
    assert_eq!(setup.runs.started(), 1, "the second request takes over");
    let refused = soon(first).await;
    assert_eq!(refused.code(), "idempotency_key_in_flight");
    setup.runs.open(1);
    assert_eq!(second.await.text(), "1");
    assert!(setup.post("/slow").await.is_replay());
    assert_eq!(setup.runs.started(), 1);
}

/// The claim is sent, and then nobody polls its request.
#[tokio::test(start_paused = true)]
async fn an_unpolled_request_does_not_run_while_the_next_attempt_runs() {
    let setup = start([]);
    let mut first = pin!(setup.post("/slow"));
    while !setup.is_held().await {
        assert!(first.as_mut().now_or_never().is_none());
    }
    assert_eq!(
        setup.runs.started(),
        0,
        "the request has not received the reply yet"
    );
    tokio::time::sleep(LEASE).await;
    let mut second = pin!(setup.post("/slow"));
    while setup.runs.started() == 0 {
        assert!(second.as_mut().now_or_never().is_none());
        tokio::task::yield_now().await;
    }
    let refused = soon(first).await;
    assert_eq!(refused.code(), "idempotency_key_in_flight");
    setup.runs.open(1);
    assert_eq!(second.await.text(), "1");
    assert_eq!(setup.runs.started(), 1);
}

/// The lease has lapsed, but no other request has taken over.
#[tokio::test(start_paused = true)]
async fn a_late_grant_is_renewed_and_runs() {
    let setup = start_waiting([], 10 * LEASE);
    setup
        .store
        .script(Operation::Claim, [DelayReply(2 * LEASE)]);
    let mut first = pin!(setup.post("/slow"));
    let ended = tokio::time::timeout(2 * LEASE + LEASE / 6, first.as_mut()).await;
    assert!(ended.is_err() && setup.is_held().await);
    assert_eq!(setup.runs.started(), 1);
    setup.runs.open(1);
    assert_eq!(first.await.text(), "1");
    assert!(setup.post("/slow").await.is_replay());
}

#[tokio::test(start_paused = true)]
async fn a_late_grant_that_cannot_be_renewed_is_released() {
    let setup = start_waiting([ErrBefore], 10 * LEASE);
    setup
        .store
        .script(Operation::Claim, [DelayReply(2 * LEASE)]);
    let refused = soon(setup.post("/slow")).await;
    assert_eq!(refused.code(), "idempotency_store_unavailable");
    assert_eq!(setup.idem.drain(Duration::MAX).await, 0);
    let id = setup.idem.record_id(&Scope::new(), "k");
    let entry = setup.store.behind().look_up(id).await;
    assert!(matches!(entry, Ok(None)), "{entry:?}");
    assert_eq!(setup.runs.started(), 0);
}

/// The handler finishes at its first poll, so no renewal happened before the record.
#[tokio::test(start_paused = true)]
async fn an_unpolled_response_keeps_its_lease_until_it_is_recorded() {
    // When the store timeout is shorter than the lease, no late record protects the key.
    let setup = start_waiting([], LEASE / 6);
    let mut first = pin!(setup.post("/at-once"));
    while setup.store.calls(Operation::Complete) == 0 {
        assert!(first.as_mut().now_or_never().is_none());
        tokio::task::yield_now().await;
    }
    tokio::time::sleep(5 * LEASE).await;
    let retry = setup.post("/at-once").await;
    assert_eq!(retry.code(), "idempotency_key_in_flight");
    assert_eq!(first.await.text(), "1");
    assert_eq!(setup.idem.drain(Duration::MAX).await, 0);
    assert!(setup.post("/at-once").await.is_replay());
    assert_eq!(setup.runs.started(), 1);
}

/// A retry may run as soon as the key is released, so nothing of the first attempt may be left then.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_extraction_is_dropped_before_its_key_is_released() {
    let (store, runs) = (MemoryStore::default(), Runs::default());
    let idem = Idempotency::builder().store(store.clone()).build();
    let router = Router::new()
        .route("/endless", post(endless))
        .layer(idem.clone())
        .with_state(Watched(store.clone(), runs.clone()));
    let id = idem.record_id(&Scope::new(), "k");
    let mut request = Box::pin(support::exchange(
        router,
        support::post("/endless", "k", ""),
    ));
    while store
        .look_up(id)
        .await
        .expect("a store in memory")
        .is_none()
    {
        assert!(request.as_mut().now_or_never().is_none());
        tokio::task::yield_now().await;
    }
    assert!(request.as_mut().now_or_never().is_none());
    tokio::spawn(async move { drop(request) })
        .await
        .expect("no panic");
    assert_eq!(
        runs.started(),
        0,
        "released before the extraction was dropped"
    );
    while store
        .look_up(id)
        .await
        .expect("a store in memory")
        .is_some()
    {
        tokio::task::yield_now().await;
    }
}

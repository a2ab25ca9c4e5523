//! A store that fails: nothing runs unprotected unseen, and no client loses its answer.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::post;
use axum_idem::store::{
    Claim, Claimed, Entry, Holder, MemoryStore, Record, Settled, Store, StoreError, StoreFuture,
};
use axum_idem::{Idempotency, OnStoreError, RecordId, idempotent};
use tokio::sync::Notify;

use crate::support::{Runs, Server, eventually, post_bytes};

/// What becomes of one call.
#[derive(Clone, Copy, Debug)]
enum Fault {
    /// It is not applied.
    Fails,
    /// It is applied, and its answer is lost.
    LosesAnswer,
    /// It is applied, and its answer never comes.
    Hangs,
    /// It is applied when the test says so.
    Waits,
}

use Fault::{Fails, Hangs, LosesAnswer, Waits};

/// The memory store behind a line that fails as it is told, once for each fault in the queue.
#[derive(Clone, Default)]
struct Faulty(Arc<Line>);

#[derive(Default)]
struct Line {
    store: MemoryStore,
    on_claim: Mutex<VecDeque<Fault>>,
    on_settle: Mutex<VecDeque<Fault>>,
    on_renew: Mutex<VecDeque<Fault>>,
    may_go_on: Notify,
    claims: AtomicUsize,
    renewals: AtomicUsize,
}

fn unavailable() -> StoreError {
    StoreError::Unavailable("the line is cut".into())
}

impl Faulty {
    /// Always with a detour through the scheduler, as a store on a network has it.
    fn pass<T: Send + 'static>(
        &self,
        faults: impl Fn(&Line) -> &Mutex<VecDeque<Fault>>,
        call: impl FnOnce(&MemoryStore) -> StoreFuture<T> + Send + 'static,
    ) -> StoreFuture<T> {
        let fault = faults(&self.0).lock().expect("no panic").pop_front();
        let line = self.0.clone();
        StoreFuture::new(async move {
            let store = &line.store;
            tokio::task::yield_now().await;
            match fault {
                None => call(store).await,
                Some(Fails) => Err(unavailable()),
                Some(LosesAnswer) => call(store).await.and(Err(unavailable())),
                Some(Hangs) => {
                    call(store).await?;
                    std::future::pending().await
                }
                Some(Waits) => {
                    line.may_go_on.notified().await;
                    call(store).await
                }
            }
        })
    }
}

impl Store for Faulty {
    /// A store on a network cannot wake those who wait.
    fn claim(&self, mut claim: Claim) -> StoreFuture<Claimed> {
        claim.wait = false;
        self.0.claims.fetch_add(1, Ordering::SeqCst);
        self.pass(|line| &line.on_claim, |store| store.claim(claim))
    }

    fn renew(&self, holder: Holder, lease: Duration) -> StoreFuture<Settled> {
        self.0.renewals.fetch_add(1, Ordering::SeqCst);
        self.pass(
            |line| &line.on_renew,
            move |store| store.renew(holder, lease),
        )
    }

    fn complete(&self, holder: Holder, record: Record, ttl: Duration) -> StoreFuture<Settled> {
        self.pass(
            |line| &line.on_settle,
            move |store| store.complete(holder, record, ttl),
        )
    }

    fn release(&self, holder: Holder) -> StoreFuture<Settled> {
        self.pass(|line| &line.on_settle, move |store| store.release(holder))
    }

    fn abandon(&self, holder: Holder) -> StoreFuture<Settled> {
        self.pass(|line| &line.on_settle, move |store| store.abandon(holder))
    }

    fn look_up(&self, id: RecordId) -> StoreFuture<Option<Entry>> {
        self.0.store.look_up(id)
    }

    fn forget(&self, id: RecordId) -> StoreFuture<bool> {
        self.0.store.forget(id)
    }

    fn resolve(
        &self,
        id: RecordId,
        fence: u64,
        record: Record,
        ttl: Duration,
    ) -> StoreFuture<Settled> {
        self.0.store.resolve(id, fence, record, ttl)
    }
}

#[idempotent(scope = global)]
async fn count(State(runs): State<Runs>) -> (StatusCode, String) {
    (StatusCode::CREATED, runs.count().to_string())
}

#[idempotent(scope = global)]
async fn slow(State(runs): State<Runs>) -> String {
    runs.pass().await.to_string()
}

#[idempotent(scope = global)]
async fn fail(State(runs): State<Runs>) -> (StatusCode, String) {
    (StatusCode::INTERNAL_SERVER_ERROR, runs.count().to_string())
}

#[idempotent(scope = global, in_flight = wait("30s"))]
async fn wait(State(runs): State<Runs>) -> String {
    runs.pass().await.to_string()
}

struct Setup {
    server: Server,
    runs: Runs,
    store: Faulty,
    idem: Idempotency,
}

async fn start_with(choice: OnStoreError, lease: Duration) -> Setup {
    let (runs, store) = (Runs::default(), Faulty::default());
    let idem = Idempotency::builder()
        .store(store.clone())
        .store_timeout(Duration::from_millis(200))
        .lease(lease)
        .on_store_error(choice)
        .build();
    let router = Router::new()
        .route("/count", post(count))
        .route("/slow", post(slow))
        .route("/fail", post(fail))
        .route("/wait", post(wait))
        .layer(idem.clone())
        .with_state(runs.clone());
    let server = Server::start(router).await;
    Setup {
        server,
        runs,
        store,
        idem,
    }
}

async fn start() -> Setup {
    start_with(OnStoreError::FailClosed, Duration::from_secs(30)).await
}

#[tokio::test]
async fn while_the_store_is_down_nothing_runs() {
    let Setup {
        server,
        runs,
        store,
        ..
    } = start().await;
    for fault in [Fails, Hangs] {
        *store.0.on_claim.lock().expect("no panic") = [fault; 3].into();
        let answer = server.post("/count", "k", "").await;
        assert_eq!(
            (answer.status.as_u16(), answer.code().as_str()),
            (503, "idempotency_store_unavailable")
        );
        assert!(answer.headers.contains_key("retry-after"));
        assert_eq!(runs.started(), 0);
    }
    store.0.on_claim.lock().expect("no panic").clear();
    // What the hanging claims took is given back before its lease is over.
    loop {
        let answer = server.post("/count", "k", "").await;
        if answer.status == 201 {
            break;
        }
        assert_eq!(answer.code(), "idempotency_key_in_flight");
    }
    assert_eq!(runs.started(), 1);
}

#[tokio::test]
async fn a_service_can_choose_to_run_unprotected_and_says_so() {
    let Setup {
        server,
        runs,
        store,
        ..
    } = start_with(OnStoreError::FailOpen, Duration::from_secs(30)).await;
    for run in ["1", "2"] {
        *store.0.on_claim.lock().expect("no panic") = [Fails; 3].into();
        let answer = server.post("/count", "k", "").await;
        assert_eq!((answer.status.as_u16(), answer.text()), (201, run));
        assert_eq!(answer.headers["idempotency-degraded"], "true");
    }
    let answer = server.post("/count", "k", "").await;
    assert!(!answer.headers.contains_key("idempotency-degraded"));
    assert_eq!(runs.started(), 3);
}

#[tokio::test]
async fn a_claim_that_fails_in_passing_is_tried_again() {
    let Setup {
        server,
        runs,
        store,
        ..
    } = start().await;
    *store.0.on_claim.lock().expect("no panic") = [Fails, Fails].into();
    assert_eq!(server.post("/count", "k", "").await.text(), "1");
    assert_eq!(
        (runs.started(), store.0.claims.load(Ordering::SeqCst)),
        (1, 3)
    );
}

/// Without its owner's mark the second try would meet the first one's claim, and answer 409 to itself.
#[tokio::test]
async fn a_claim_whose_answer_was_lost_recognises_itself() {
    for fault in [LosesAnswer, Hangs] {
        let Setup {
            server,
            runs,
            store,
            ..
        } = start().await;
        *store.0.on_claim.lock().expect("no panic") = [fault].into();
        let answer = server.post("/count", "k", "").await;
        assert_eq!(
            (answer.status.as_u16(), answer.text()),
            (201, "1"),
            "{fault:?}"
        );
        assert_eq!(runs.started(), 1);
    }
}

#[tokio::test]
async fn being_in_flight_is_no_failure_to_try_again() {
    let Setup {
        server,
        runs,
        store,
        ..
    } = start().await;
    let _first = server.write(post_bytes("/slow", "k", "")).await;
    runs.until_started(1).await;
    assert_eq!(server.post("/slow", "k", "").await.status, 409);
    assert_eq!(store.0.claims.load(Ordering::SeqCst), 2);
}

#[tokio::test]
async fn when_the_record_cannot_be_written_the_client_has_its_answer_and_the_key_stays_taken() {
    for fault in [Fails, Hangs, LosesAnswer] {
        let Setup {
            server,
            runs,
            store,
            ..
        } = start().await;
        *store.0.on_settle.lock().expect("no panic") = [fault].into();
        let first = server.post("/count", "k", "").await;
        assert_eq!(
            (first.status.as_u16(), first.text()),
            (201, "1"),
            "{fault:?}"
        );
        loop {
            let retry = server.post("/count", "k", "").await;
            if retry.status == 201 {
                assert!(retry.is_replay());
                break;
            }
            assert_eq!(retry.code(), "idempotency_key_in_flight");
        }
        assert_eq!(runs.started(), 1);
    }
}

#[tokio::test]
async fn a_record_that_fails_for_longer_than_a_lease_is_written_all_the_same() {
    let Setup {
        server,
        runs,
        store,
        idem,
    } = start_with(OnStoreError::FailClosed, Duration::from_millis(300)).await;
    *store.0.on_settle.lock().expect("no panic") = [Fails; 5].into();
    assert_eq!(server.post("/count", "k", "").await.text(), "1");
    assert_eq!(
        server.post("/count", "k", "").await.code(),
        "idempotency_key_in_flight"
    );
    assert_eq!(idem.drain(Duration::from_secs(30)).await, 0);
    assert!(server.post("/count", "k", "").await.is_replay());
    assert_eq!(runs.started(), 1);
}

#[tokio::test]
async fn when_the_key_cannot_be_released_the_client_has_its_answer() {
    let Setup {
        server,
        runs,
        store,
        idem,
    } = start().await;
    *store.0.on_settle.lock().expect("no panic") = [Fails].into();
    let answer = server.post("/fail", "k", "").await;
    assert_eq!((answer.status.as_u16(), answer.text()), (500, "1"));
    idem.drain(Duration::from_secs(30)).await;
    assert_eq!(server.post("/fail", "k", "").await.text(), "2");
    assert_eq!(runs.started(), 2);
}

#[tokio::test]
async fn a_renewal_that_fails_ends_nothing() {
    let Setup {
        server,
        runs,
        store,
        ..
    } = start_with(OnStoreError::FailClosed, Duration::from_millis(300)).await;
    *store.0.on_renew.lock().expect("no panic") = [Fails, LosesAnswer].into();
    let first = tokio::spawn(async move { server.post("/slow", "k", "").await });
    eventually("the lease is renewed", || {
        store.0.renewals.load(Ordering::SeqCst) >= 6
    })
    .await;
    assert_eq!(
        server.post("/slow", "k", "").await.code(),
        "idempotency_key_in_flight"
    );
    runs.open(1);
    assert_eq!(first.await.expect("no panic").text(), "1");
    let renewals = store.0.renewals.load(Ordering::SeqCst);
    assert!(server.post("/slow", "k", "").await.is_replay());
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(
        store.0.renewals.load(Ordering::SeqCst),
        renewals,
        "it goes on after the end"
    );
}

#[tokio::test]
async fn those_who_wait_look_again_where_the_store_cannot_wake_them() {
    let Setup {
        server,
        runs,
        store,
        ..
    } = start().await;
    let first = tokio::spawn(async move { server.post("/wait", "k", "").await });
    runs.until_started(1).await;
    let waiters: Vec<_> = (0..5)
        .map(|_| tokio::spawn(async move { server.post("/wait", "k", "").await }))
        .collect();
    eventually("they wait", || store.0.claims.load(Ordering::SeqCst) > 12).await;
    runs.open(1);
    assert_eq!(first.await.expect("no panic").text(), "1");
    for waiter in waiters {
        assert!(waiter.await.expect("no panic").is_replay());
    }
    assert_eq!(runs.started(), 1);
}

/// Its client is gone before the store has said whether it may run.
#[tokio::test]
async fn a_claim_that_nobody_waits_for_is_given_back() {
    let Setup {
        server,
        runs,
        store,
        ..
    } = start().await;
    *store.0.on_claim.lock().expect("no panic") = [Hangs].into();
    let stream = server.write(post_bytes("/count", "k", "")).await;
    eventually("it claims", || store.0.claims.load(Ordering::SeqCst) == 1).await;
    drop(stream);
    loop {
        let answer = server.post("/count", "k", "").await;
        if answer.status == 201 {
            break;
        }
        assert_eq!(answer.code(), "idempotency_key_in_flight");
    }
    assert_eq!(runs.started(), 1);
}

#[tokio::test]
async fn no_byte_of_the_answer_leaves_before_the_record_is_in_the_store() {
    let Setup {
        server,
        runs,
        store,
        ..
    } = start_with(OnStoreError::FailClosed, Duration::from_secs(30)).await;
    *store.0.on_settle.lock().expect("no panic") = [Waits].into();
    let mut answer = tokio::spawn(async move { server.post("/count", "k", "").await });
    runs.until_finished(1).await;
    let early = tokio::time::timeout(Duration::from_millis(50), &mut answer).await;
    assert!(
        early.is_err(),
        "it has its answer before the store has the record"
    );
    store.0.may_go_on.notify_one();
    assert_eq!(answer.await.expect("no panic").text(), "1");
    assert!(server.post("/count", "k", "").await.is_replay());
}

/// Between the end of the handler and the store's word, the client goes away.
#[tokio::test]
async fn a_record_is_written_though_its_client_has_gone() {
    let Setup {
        server,
        runs,
        store,
        idem,
    } = start().await;
    *store.0.on_settle.lock().expect("no panic") = [Hangs].into();
    let stream = server.write(post_bytes("/count", "k", "")).await;
    runs.until_started(1).await;
    drop(stream);
    idem.drain(Duration::from_secs(30)).await;
    assert!(server.post("/count", "k", "").await.is_replay());
    assert_eq!(runs.started(), 1);
}

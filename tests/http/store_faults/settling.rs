//! Tests a store that fails while an attempt is settled.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{Extension, Request, State};
use axum::http::StatusCode;
use axum::middleware::{Next, from_fn};
use axum::response::IntoResponse;
use axum::routing::post;
use axum_idem::store::{Entry, MemoryStore, Store};
use axum_idem::testing::Fault::{self, Delay, DropReply, ErrAfter, ErrBefore, Hang, Pause};
use axum_idem::testing::FaultStore;
use axum_idem::testing::Operation::{Abandon, Claim, Complete, Forget, LookUp, Release, Renew};
use axum_idem::{Idempotency, OnStoreError, Scope, idempotent};
use tokio::sync::Notify;

use super::{LONG, SHORT, start, start_waiting, start_with};
use crate::support::{Runs, Server, eventually, post_bytes};

const EACH: [Fault; 5] = [
    ErrBefore,
    ErrAfter,
    Hang,
    DropReply,
    Delay(Duration::from_millis(10)),
];

#[tokio::test]
async fn a_failed_record_still_sends_the_response_and_keeps_the_key() {
    for fault in EACH {
        let setup = start().await;
        setup.store.script(Complete, [fault]);
        let first = setup.server.post("/count", "k", "").await;
        assert_eq!(
            (first.status.as_u16(), first.text()),
            (201, "1"),
            "{fault:?}"
        );
        let is_late = fault != Delay(Duration::from_millis(10));
        assert_eq!(first.is_unrecorded(), is_late, "{fault:?}");
        assert!(setup.retry("/count").await.is_replay(), "{fault:?}");
        assert_eq!(setup.idem.drain(LONG).await, 0);
        assert!(!setup.retry("/count").await.is_unrecorded(), "{fault:?}");
        assert_eq!(setup.runs.started(), 1);
    }
}

#[tokio::test]
async fn a_record_is_retried_for_longer_than_a_lease() {
    let setup = start_with(OnStoreError::FailClosed, SHORT).await;
    setup.store.script(Complete, [ErrBefore; 5]);
    assert_eq!(setup.server.post("/count", "k", "").await.text(), "1");
    let entry = setup.stored().await;
    assert!(matches!(entry, Some(Entry::InFlight { .. })), "{entry:?}");
    assert_eq!(setup.idem.drain(LONG).await, 0);
    assert!(setup.server.post("/count", "k", "").await.is_replay());
    assert_eq!(setup.runs.started(), 1);
}

/// The record must use the lease that the renewal prolonged.
#[tokio::test]
async fn a_record_that_fails_after_a_renewal_is_retried() {
    let setup = start_with(OnStoreError::FailClosed, SHORT).await;
    let (server, store) = (setup.server, &setup.store);
    let first = tokio::spawn(async move { server.post("/slow", "k", "").await });
    eventually("the lease is renewed", || store.calls(Renew) >= 2).await;
    store.script(Complete, [ErrBefore]);
    setup.runs.open(1);
    assert_eq!(first.await.expect("no panic").text(), "1");
    assert_eq!(setup.idem.drain(LONG).await, 0);
    assert!(server.post("/slow", "k", "").await.is_replay());
    assert_eq!(setup.runs.started(), 1);
}

fn is_unknown(entry: Option<&Entry>) -> bool {
    matches!(entry, Some(Entry::Unknown { .. }))
}

/// The store accepts neither the record nor a renewal. The process that holds the response replays it.
#[tokio::test]
async fn a_late_record_is_replayed_by_its_process_and_written_later() {
    for path in ["/count", "/held"] {
        let setup = start_with(OnStoreError::FailClosed, SHORT).await;
        setup.store.script(Complete, [ErrBefore; 500]);
        setup.store.script(Renew, [ErrBefore; 500]);
        let first = setup.server.post(path, "k", "").await;
        assert_eq!((first.text(), first.is_unrecorded()), ("1", true));
        setup.until_stored("the lease lapses", is_unknown).await;
        let retry = setup.server.post(path, "k", "").await;
        assert_eq!((retry.text(), retry.is_replay()), ("1", true));
        assert!(retry.is_unrecorded());
        let other = setup.server.post(path, "k", "another request").await;
        assert_eq!(other.code(), "idempotency_key_reused");
        // The process replays even while the store is unreachable.
        setup.store.script(Claim, [ErrBefore; 3]);
        assert!(setup.server.post(path, "k", "").await.is_replay());
        assert_eq!(setup.claims(), 1);
        assert_eq!(setup.idem.drain(SHORT).await, 1);
        setup.store.heal();
        assert_eq!(setup.idem.drain(LONG).await, 0);
        let replay = setup.server.post(path, "k", "").await;
        assert_eq!((replay.text(), replay.is_replay()), ("1", true));
        assert!(!replay.is_unrecorded());
        assert_eq!(setup.runs.started(), 1);
    }
}

/// A claim is sent before the record is late. The store grants the claim after the lease has lapsed.
#[tokio::test]
async fn a_retry_granted_by_the_store_gets_the_late_record() {
    let setup = start_waiting(OnStoreError::FailClosed, SHORT, Duration::from_secs(4)).await;
    let (server, runs, store) = (setup.server, &setup.runs, &setup.store);
    store.script(Renew, [ErrBefore; 500]);
    store.script(Complete, [Hang]);
    let first = tokio::spawn(async move { server.post("/slow", "k", "").await });
    runs.until_started(1).await;
    store.script(Claim, [Pause]);
    let retry = tokio::spawn(async move { server.post("/slow", "k", "").await });
    eventually("the retry claims", || setup.claims() == 2).await;
    runs.open(2);
    eventually("the first run sends its record", || {
        store.calls(Complete) == 1
    })
    .await;
    setup.until_stored("the lease lapses", is_unknown).await;
    store.resume();
    let retry = retry.await.expect("no panic");
    assert_eq!((retry.text(), retry.is_replay()), ("1", true));
    assert!(retry.is_unrecorded());
    assert_eq!(first.await.expect("no panic").text(), "1");
    assert_eq!(setup.idem.drain(LONG).await, 0);
    let replay = server.post("/slow", "k", "").await;
    assert_eq!((replay.text(), replay.is_unrecorded()), ("1", false));
    assert_eq!(runs.started(), 1);
}

/// An abandoned claim arrives late and takes over from the attempt whose record is late.
#[tokio::test]
async fn a_late_claim_that_takes_over_gets_the_late_record() {
    let setup = start_with(OnStoreError::FailClosed, SHORT).await;
    let (server, runs, store) = (setup.server, &setup.runs, &setup.store);
    store.script(Renew, [ErrBefore; 500]);
    store.script(Complete, [ErrBefore; 500]);
    let first = tokio::spawn(async move { server.post("/slow", "k", "").await });
    runs.until_started(1).await;
    store.script(Claim, [Pause; 3]);
    store.script(LookUp, [ErrBefore; 500]);
    let refused = server.post("/slow", "k", "").await;
    assert_eq!(refused.code(), "idempotency_store_unavailable");
    runs.open(2);
    assert!(first.await.expect("no panic").is_unrecorded());
    setup.until_stored("the lease lapses", is_unknown).await;
    store.resume();
    let is_second = |it: Option<&Entry>| {
        matches!(
            it,
            Some(Entry::InFlight { attempt: 2, .. } | Entry::Unknown { attempt: 2, .. })
        )
    };
    setup.until_stored("the claim arrives", is_second).await;
    store.heal();
    let is_recorded = |it: Option<&Entry>| matches!(it, Some(Entry::Recorded { .. }));
    setup
        .until_stored("the response is recorded", is_recorded)
        .await;
    let replay = server.post("/slow", "k", "").await;
    assert_eq!((replay.text(), replay.is_replay()), ("1", true));
    assert_eq!(runs.started(), 1);
}

#[tokio::test]
async fn an_operator_can_forget_a_late_record() {
    let setup = start_with(OnStoreError::FailClosed, SHORT).await;
    setup.store.script(Complete, [ErrBefore; 500]);
    let id = setup.idem.record_id(&Scope::new(), "k");
    assert!(setup.server.post("/count", "k", "").await.is_unrecorded());
    setup.store.script(Forget, [ErrBefore]);
    assert!(setup.idem.forget(id).await.is_err());
    assert!(setup.server.post("/count", "k", "").await.is_replay());
    assert!(setup.idem.forget(id).await.expect("the store works"));
    let again = setup.server.post("/count", "k", "").await;
    assert_eq!((again.text(), again.is_replay()), ("2", false));
    setup.store.heal();
    assert_eq!(setup.idem.drain(LONG).await, 0);
    assert_eq!(setup.server.post("/count", "k", "").await.text(), "2");
}

/// This process knows the outcome, although the store does not.
#[tokio::test]
async fn a_key_with_a_late_record_cannot_be_resolved() {
    let setup = start_with(OnStoreError::FailClosed, SHORT).await;
    setup.store.script(Complete, [ErrBefore; 500]);
    setup.store.script(Renew, [ErrBefore; 500]);
    let id = setup.idem.record_id(&Scope::new(), "k");
    assert!(setup.server.post("/held", "k", "").await.is_unrecorded());
    setup.until_stored("the lease lapses", is_unknown).await;
    let by_hand = axum::http::Response::new("by hand".into());
    let resolved = setup.idem.resolve(id, by_hand, LONG).await;
    assert!(!resolved.expect("the store works"));
    setup.store.heal();
    assert_eq!(setup.idem.drain(LONG).await, 0);
    assert_eq!(setup.server.post("/held", "k", "").await.text(), "1");
}

#[tokio::test]
async fn a_failed_release_still_sends_the_response() {
    for fault in EACH {
        let setup = start().await;
        setup.store.script(Release, [fault]);
        let answer = setup.server.post("/fail", "k", "").await;
        assert_eq!((answer.status.as_u16(), answer.text()), (500, "1"));
        setup.idem.drain(LONG).await;
        assert_eq!(setup.retry("/fail").await.text(), "2", "{fault:?}");
        assert_eq!(setup.runs.started(), 2);
    }
}

/// The lease lapses meanwhile, but the process still knows the outcome.
#[tokio::test]
async fn a_held_key_is_released_when_the_store_is_back() {
    let setup = start_with(OnStoreError::FailClosed, SHORT).await;
    setup.store.script(Release, [ErrBefore; 500]);
    assert_eq!(setup.server.post("/held-fail", "k", "").await.text(), "1");
    setup.until_stored("the lease lapses", is_unknown).await;
    setup.store.heal();
    assert_eq!(setup.idem.drain(LONG).await, 0);
    assert_eq!(setup.server.post("/held-fail", "k", "").await.text(), "2");
}

#[tokio::test]
async fn an_unreleased_key_is_free_after_its_lease() {
    let setup = start_with(OnStoreError::FailClosed, SHORT).await;
    setup.store.script(Release, [ErrBefore; 100]);
    assert_eq!(setup.server.post("/fail", "k", "").await.text(), "1");
    assert_eq!(setup.retry("/fail").await.text(), "2");
    assert_eq!(setup.runs.started(), 2);
}

#[tokio::test]
async fn after_a_panic_a_failed_abandon_is_retried() {
    for fault in EACH {
        let setup = start().await;
        setup.store.script(Abandon, [fault]);
        assert_eq!(setup.server.post("/panics", "k", "").await.status, 500);
        setup.idem.drain(LONG).await;
        assert_eq!(setup.retry("/panics").await.text(), "2", "{fault:?}");
        assert!(setup.server.post("/panics", "k", "").await.is_replay());
        assert_eq!(setup.runs.started(), 2);
    }
}

/// Only `drain` waits for the abandon.
#[tokio::test]
async fn drain_waits_until_a_panic_is_settled() {
    let setup = start().await;
    setup.store.script(Abandon, [Pause]);
    assert_eq!(setup.server.post("/panics", "k", "").await.status, 500);
    assert_eq!(setup.idem.drain(Duration::from_millis(20)).await, 1);
    setup.store.resume();
    assert_eq!(setup.idem.drain(LONG).await, 0);
    assert!(is_unknown(setup.stored().await.as_ref()));
}

#[tokio::test]
async fn the_response_is_sent_only_after_it_is_recorded() {
    let setup = start().await;
    let (server, store) = (setup.server, &setup.store);
    store.script(Complete, [Pause]);
    let mut answer = tokio::spawn(async move { server.post("/count", "k", "").await });
    setup.runs.until_finished(1).await;
    let early = tokio::time::timeout(Duration::from_millis(50), &mut answer).await;
    assert!(
        early.is_err(),
        "the client got its response before the store had the record"
    );
    store.resume();
    assert_eq!(answer.await.expect("no panic").text(), "1");
    assert!(server.post("/count", "k", "").await.is_replay());
}

/// The client leaves after the handler has finished and before the store has replied.
#[tokio::test]
async fn a_record_is_written_after_its_client_has_left() {
    for fault in EACH {
        let setup = start().await;
        setup.store.script(Complete, [fault]);
        let stream = setup.server.write(post_bytes("/count", "k", "")).await;
        setup.runs.until_started(1).await;
        drop(stream);
        setup.idem.drain(LONG).await;
        assert!(setup.retry("/count").await.is_replay(), "{fault:?}");
        assert_eq!(setup.runs.started(), 1);
    }
}

/// Cancels the work of one request. The handler drops the token when it returns.
#[derive(Clone)]
struct Token(Arc<Notify>);

impl Drop for Token {
    fn drop(&mut self) {
        self.0.notify_one();
    }
}

/// A layer that watches the token of a handler drops the request as soon as the handler returns, before the store
/// has replied.
#[tokio::test]
async fn a_record_is_written_although_the_handler_cancels_its_own_request() {
    #[idempotent(scope = global)]
    async fn cancels(Extension(token): Extension<Token>, State(runs): State<Runs>) -> String {
        let _cancels_on_return = token;
        runs.count().to_string()
    }
    let watch = |mut request: Request, next: Next| async move {
        let is_cancelled = Arc::new(Notify::new());
        request.extensions_mut().insert(Token(is_cancelled.clone()));
        tokio::select! {
            biased;
            response = next.run(request) => response,
            () = is_cancelled.notified() => StatusCode::GATEWAY_TIMEOUT.into_response(),
        }
    };
    for fault in EACH {
        let (runs, store) = (Runs::default(), FaultStore::new(MemoryStore::default()));
        let idem = Idempotency::builder().store(store.clone());
        let idem = idem.store_timeout(Duration::from_millis(200)).build();
        let router = Router::new()
            .route("/", post(cancels))
            .layer(idem.clone())
            .layer(from_fn(watch))
            .with_state(runs.clone());
        let server = Server::start(router).await;
        store.script(Complete, [fault]);
        assert_eq!(server.post("/", "k", "").await.status, 504, "{fault:?}");
        idem.drain(LONG).await;
        let id = idem.record_id(&Scope::new(), "k");
        match store.behind().look_up(id).await.expect("memory") {
            Some(Entry::Recorded { record, .. }) => assert_eq!(record.body(), "1", "{fault:?}"),
            entry => panic!("{fault:?}: no record: {entry:?}"),
        }
        assert_eq!(runs.started(), 1);
    }
}

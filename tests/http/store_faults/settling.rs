//! The store fails when it is told what became of an attempt.

use std::time::Duration;

use axum_idem::store::Entry;
use axum_idem::testing::Fault::{self, Delay, DropReply, ErrAfter, ErrBefore, Hang, Pause};
use axum_idem::testing::Operation::{Abandon, Claim, Complete, Forget, LookUp, Release, Renew};
use axum_idem::{OnStoreError, Scope};

use super::{LONG, SHORT, start, start_waiting, start_with};
use crate::support::{eventually, post_bytes};

const EACH: [Fault; 5] = [
    ErrBefore,
    ErrAfter,
    Hang,
    DropReply,
    Delay(Duration::from_millis(10)),
];

#[tokio::test]
async fn when_the_record_cannot_be_written_the_client_has_its_answer_and_the_key_stays_taken() {
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
async fn a_record_that_fails_for_longer_than_a_lease_is_written_all_the_same() {
    let setup = start_with(OnStoreError::FailClosed, SHORT).await;
    setup.store.script(Complete, [ErrBefore; 5]);
    assert_eq!(setup.server.post("/count", "k", "").await.text(), "1");
    let entry = setup.stored().await;
    assert!(matches!(entry, Some(Entry::InFlight { .. })), "{entry:?}");
    assert_eq!(setup.idem.drain(LONG).await, 0);
    assert!(setup.server.post("/count", "k", "").await.is_replay());
    assert_eq!(setup.runs.started(), 1);
}

/// The lease that a renewal has prolonged is the one that is left for it.
#[tokio::test]
async fn a_record_that_fails_after_a_renewal_is_written_all_the_same() {
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

/// Neither the record nor the lease can be kept up. The process that holds the response replays it.
#[tokio::test]
async fn a_store_that_stays_away_for_longer_than_a_lease_gets_the_record_when_it_is_back() {
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
        // Not even while the store cannot be asked.
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

/// A claim that was sent before the record was late is granted after the lease has lapsed.
#[tokio::test]
async fn a_retry_that_the_store_lets_through_gets_the_record_that_is_late() {
    let setup = start_waiting(OnStoreError::FailClosed, SHORT, Duration::from_secs(4)).await;
    let (server, runs, store) = (setup.server, &setup.runs, &setup.store);
    store.script(Renew, [ErrBefore; 500]);
    store.script(Complete, [Hang]);
    let first = tokio::spawn(async move { server.post("/slow", "k", "").await });
    runs.until_started(1).await;
    store.script(Claim, [Pause]);
    let retry = tokio::spawn(async move { server.post("/slow", "k", "").await });
    eventually("it claims", || setup.claims() == 2).await;
    runs.open(2);
    eventually("its record is under way", || store.calls(Complete) == 1).await;
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

/// A claim that was given up arrives late and overtakes the attempt whose record is late.
#[tokio::test]
async fn a_claim_that_was_given_up_and_overtakes_gets_the_record_that_is_late() {
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
    setup.until_stored("it is recorded", is_recorded).await;
    let replay = server.post("/slow", "k", "").await;
    assert_eq!((replay.text(), replay.is_replay()), ("1", true));
    assert_eq!(runs.started(), 1);
}

#[tokio::test]
async fn an_operator_can_forget_a_record_that_is_late() {
    let setup = start_with(OnStoreError::FailClosed, SHORT).await;
    setup.store.script(Complete, [ErrBefore; 500]);
    let id = setup.idem.record_id(&Scope::new(), "k");
    assert!(setup.server.post("/count", "k", "").await.is_unrecorded());
    setup.store.script(Forget, [ErrBefore]);
    assert!(setup.idem.forget(id).await.is_err());
    assert!(setup.server.post("/count", "k", "").await.is_replay());
    assert!(setup.idem.forget(id).await.expect("the store is there"));
    let again = setup.server.post("/count", "k", "").await;
    assert_eq!((again.text(), again.is_replay()), ("2", false));
    setup.store.heal();
    assert_eq!(setup.idem.drain(LONG).await, 0);
    assert_eq!(setup.server.post("/count", "k", "").await.text(), "2");
}

/// This process knows the outcome, though the store does not.
#[tokio::test]
async fn a_key_whose_record_is_late_is_not_resolved() {
    let setup = start_with(OnStoreError::FailClosed, SHORT).await;
    setup.store.script(Complete, [ErrBefore; 500]);
    setup.store.script(Renew, [ErrBefore; 500]);
    let id = setup.idem.record_id(&Scope::new(), "k");
    assert!(setup.server.post("/held", "k", "").await.is_unrecorded());
    setup.until_stored("the lease lapses", is_unknown).await;
    let by_hand = axum::http::Response::new("by hand".into());
    let resolved = setup.idem.resolve(id, by_hand, LONG).await;
    assert!(!resolved.expect("the store is there"));
    setup.store.heal();
    assert_eq!(setup.idem.drain(LONG).await, 0);
    assert_eq!(setup.server.post("/held", "k", "").await.text(), "1");
}

#[tokio::test]
async fn when_the_key_cannot_be_released_the_client_has_its_answer() {
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

/// Its lease lapses meanwhile, and the outcome is known all the same.
#[tokio::test]
async fn a_key_that_is_held_when_unknown_is_released_when_the_store_is_back() {
    let setup = start_with(OnStoreError::FailClosed, SHORT).await;
    setup.store.script(Release, [ErrBefore; 500]);
    assert_eq!(setup.server.post("/held-fail", "k", "").await.text(), "1");
    setup.until_stored("the lease lapses", is_unknown).await;
    setup.store.heal();
    assert_eq!(setup.idem.drain(LONG).await, 0);
    assert_eq!(setup.server.post("/held-fail", "k", "").await.text(), "2");
}

#[tokio::test]
async fn a_key_that_is_never_released_ends_with_its_lease() {
    let setup = start_with(OnStoreError::FailClosed, SHORT).await;
    setup.store.script(Release, [ErrBefore; 100]);
    assert_eq!(setup.server.post("/fail", "k", "").await.text(), "1");
    assert_eq!(setup.retry("/fail").await.text(), "2");
    assert_eq!(setup.runs.started(), 2);
}

#[tokio::test]
async fn after_a_panic_the_key_is_given_up_though_the_store_fails_at_first() {
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

/// Nobody waits for it but `drain`.
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
async fn no_byte_of_the_answer_leaves_before_the_record_is_in_the_store() {
    let setup = start().await;
    let (server, store) = (setup.server, &setup.store);
    store.script(Complete, [Pause]);
    let mut answer = tokio::spawn(async move { server.post("/count", "k", "").await });
    setup.runs.until_finished(1).await;
    let early = tokio::time::timeout(Duration::from_millis(50), &mut answer).await;
    assert!(
        early.is_err(),
        "it has its answer before the store has the record"
    );
    store.resume();
    assert_eq!(answer.await.expect("no panic").text(), "1");
    assert!(server.post("/count", "k", "").await.is_replay());
}

/// Between the end of the handler and the store's word, the client goes away.
#[tokio::test]
async fn a_record_is_written_though_its_client_has_gone() {
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

//! The store fails when it is told what became of an attempt.

use std::time::Duration;

use axum_idem::OnStoreError;
use axum_idem::testing::Fault::{self, Delay, DropReply, ErrAfter, ErrBefore, Hang, Pause};
use axum_idem::testing::Operation::{Abandon, Complete, Release, Renew};

use super::{LONG, SHORT, start, start_with};
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
        assert!(setup.retry("/count").await.is_replay(), "{fault:?}");
        assert_eq!(setup.runs.started(), 1);
    }
}

#[tokio::test]
async fn a_record_that_fails_for_longer_than_a_lease_is_written_all_the_same() {
    let setup = start_with(OnStoreError::FailClosed, SHORT).await;
    setup.store.script(Complete, [ErrBefore; 5]);
    assert_eq!(setup.server.post("/count", "k", "").await.text(), "1");
    assert_eq!(
        setup.server.post("/count", "k", "").await.code(),
        "idempotency_key_in_flight"
    );
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

/// Neither the record nor the lease can be kept up: from then on the outcome is unknown.
#[tokio::test]
async fn when_the_store_stays_away_the_key_ends_with_its_lease() {
    for (path, then) in [("/count", "2"), ("/held", "idempotency_outcome_unknown")] {
        let setup = start_with(OnStoreError::FailClosed, SHORT).await;
        setup.store.script(Complete, [ErrBefore; 100]);
        setup.store.script(Renew, [ErrBefore; 100]);
        assert_eq!(setup.server.post(path, "k", "").await.text(), "1");
        assert_eq!(setup.idem.drain(LONG).await, 0);
        setup.store.heal();
        let retry = setup.retry(path).await;
        if path == "/held" {
            assert_eq!(retry.code(), then);
        } else {
            assert_eq!(retry.text(), then);
        }
    }
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

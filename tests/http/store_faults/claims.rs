//! Tests a store that fails while a request claims its key.

use std::time::{Duration, Instant};

use axum_idem::OnStoreError;
use axum_idem::store::Entry;
use axum_idem::testing::Fault::{
    self, Delay, DropReply, ErrAfter, ErrBefore, Hang, Pause, Undecodable,
};
use axum_idem::testing::Operation::{Claim, LookUp, Release};

use super::{LONG, SHORT, start, start_waiting, start_with};
use crate::support::{PATIENCE, eventually, post_bytes};

const EACH: [Fault; 4] = [ErrBefore, ErrAfter, Hang, DropReply];

#[tokio::test]
async fn no_handler_runs_while_the_store_is_down() {
    let setup = start().await;
    for fault in EACH {
        setup.store.script(Claim, [fault; 3]);
        let answer = setup.server.post("/count", "k", "").await;
        assert_eq!(
            (answer.status.as_u16(), answer.code().as_str()),
            (503, "idempotency_store_unavailable"),
            "{fault:?}"
        );
        assert!(answer.headers.contains_key("retry-after"));
        assert_eq!(setup.runs.started(), 0);
    }
    // The store may have granted a claim without a reply. The engine releases that claim before its
    // lease ends.
    assert_eq!(setup.retry("/count").await.text(), "1");
    assert_eq!(setup.runs.started(), 1);
}

#[tokio::test]
async fn fail_open_runs_the_handler_and_marks_the_response() {
    let setup = start_with(OnStoreError::FailOpen, LONG).await;
    for (run, fault) in EACH.into_iter().enumerate() {
        setup.store.script(Claim, [fault; 3]);
        let answer = setup.server.post("/echo", "k", "whole").await;
        let text = format!("whole {}", run + 1);
        assert_eq!((answer.status.as_u16(), answer.text()), (201, &*text));
        assert_eq!(answer.headers["idempotency-degraded"], "true", "{fault:?}");
    }
    let answer = setup.server.post("/echo", "other", "whole").await;
    assert!(!answer.headers.contains_key("idempotency-degraded"));
    assert_eq!(setup.runs.started(), 5);
}

#[tokio::test]
async fn a_claim_is_retried_after_transient_errors() {
    let setup = start().await;
    setup.store.script(Claim, [ErrBefore, ErrBefore]);
    let begun = Instant::now();
    assert_eq!(setup.server.post("/count", "k", "").await.text(), "1");
    assert_eq!((setup.runs.started(), setup.claims()), (1, 3));
    // The engine pauses before the second try, and longer before the third.
    assert!(begun.elapsed() >= Duration::from_millis(10 + 20));
}

/// A hanging try takes half of the timeout. The rest is left for a slow store.
#[tokio::test]
async fn a_hanging_claim_leaves_time_for_a_second_try() {
    let setup = start_waiting(OnStoreError::FailClosed, LONG, Duration::from_secs(2)).await;
    let slow = Delay(Duration::from_millis(5));
    setup.store.script(Claim, [Hang, slow, slow]);
    assert_eq!(setup.server.post("/count", "k", "").await.text(), "1");
    assert_eq!(setup.runs.started(), 1);
}

/// Without the holder's id, the second try would meet the claim of the first try and return 409.
#[tokio::test]
async fn a_claim_whose_reply_was_lost_is_recognised_by_its_holder() {
    for faults in [vec![ErrAfter], vec![DropReply], vec![ErrAfter, ErrAfter]] {
        let setup = start().await;
        setup.store.script(Claim, faults.clone());
        let answer = setup.server.post("/count", "k", "").await;
        assert_eq!(
            (answer.status.as_u16(), answer.text()),
            (201, "1"),
            "{faults:?}"
        );
        assert_eq!(setup.runs.started(), 1);
    }
}

#[tokio::test]
async fn a_slow_claim_is_awaited() {
    let setup = start().await;
    setup
        .store
        .script(Claim, [Delay(Duration::from_millis(10))]);
    assert_eq!(setup.server.post("/count", "k", "").await.text(), "1");
    assert_eq!((setup.runs.started(), setup.claims()), (1, 1));
}

/// A second call could not read the record either, and it must not free the key.
#[tokio::test]
async fn an_undecodable_record_is_refused() {
    let setup = start().await;
    setup.store.script(Claim, [Undecodable]);
    let answer = setup.server.post("/count", "k", "").await;
    assert_eq!(answer.code(), "idempotency_store_unavailable");
    assert_eq!(setup.runs.started(), 0);
}

#[tokio::test]
async fn a_claim_in_flight_is_not_retried() {
    let setup = start().await;
    let _first = setup.server.write(post_bytes("/slow", "k", "")).await;
    setup.runs.until_started(1).await;
    assert_eq!(setup.server.post("/slow", "k", "").await.status, 409);
    assert_eq!(setup.claims(), 2);
}

/// The client leaves before the store has replied to the claim.
#[tokio::test]
async fn a_claim_whose_client_left_is_released() {
    let setup = start().await;
    setup.store.script(Claim, [DropReply]);
    let stream = setup.server.write(post_bytes("/count", "k", "")).await;
    eventually("the request claims", || setup.claims() == 1).await;
    drop(stream);
    assert_eq!(setup.retry("/count").await.text(), "1");
    assert_eq!(setup.runs.started(), 1);
}

/// The lease lasts an hour, so only a release can free the key.
#[tokio::test]
async fn a_failed_release_of_a_claim_is_retried() {
    for (look_up, release) in [
        (Some(ErrBefore), None),
        (Some(Hang), None),
        (None, Some(ErrBefore)),
        (None, Some(DropReply)),
    ] {
        let setup = start().await;
        setup.store.script(Claim, [DropReply]);
        setup.store.script(LookUp, look_up);
        setup.store.script(Release, release);
        let stream = setup.server.write(post_bytes("/held", "k", "")).await;
        eventually("the request claims", || setup.claims() == 1).await;
        drop(stream);
        assert_eq!(setup.retry("/held").await.text(), "1");
        assert_eq!(setup.runs.started(), 1);
    }
}

/// The store pauses and executes the queued calls later.
#[tokio::test]
async fn a_claim_that_arrives_after_its_request_was_refused_is_released() {
    let setup = start().await;
    setup.store.script(Claim, [Pause; 3]);
    let refused = setup.server.post("/held", "k", "").await;
    assert_eq!(refused.code(), "idempotency_store_unavailable");
    eventually("the engine looks for the claim", || {
        setup.store.calls(LookUp) > 1
    })
    .await;
    assert!(setup.stored().await.is_none());
    setup.store.resume();
    setup
        .until_stored("the claim arrives", |it| it.is_some())
        .await;
    assert_eq!(setup.retry("/held").await.text(), "1");
    assert_eq!(setup.runs.started(), 1);
}

/// The handler did not run under this claim, so its outcome is not unknown.
#[tokio::test]
async fn a_claim_that_lapsed_before_it_was_found_is_released() {
    let setup = start_with(OnStoreError::FailClosed, SHORT).await;
    setup.store.script(Claim, [DropReply; 3]);
    setup.store.script(LookUp, [Pause]);
    let refused = setup.server.post("/held", "k", "").await;
    assert_eq!(refused.code(), "idempotency_store_unavailable");
    let has_lapsed = |it: Option<&Entry>| matches!(it, Some(Entry::Unknown { .. }));
    setup.until_stored("the claim lapses", has_lapsed).await;
    setup.store.resume();
    setup
        .until_stored("the claim is released", |it| it.is_none())
        .await;
    assert_eq!(setup.server.post("/held", "k", "").await.text(), "1");
}

/// The engine looks the claim up. A second claim could be granted and lost as well.
#[tokio::test]
async fn a_lost_claim_is_looked_up_and_not_repeated() {
    let setup = start_with(OnStoreError::FailClosed, SHORT).await;
    setup.store.script(Claim, [ErrBefore; 3]);
    let refused = setup.server.post("/held", "k", "").await;
    assert_eq!(refused.code(), "idempotency_store_unavailable");
    assert_eq!(setup.idem.drain(LONG).await, 0);
    assert!(
        setup.store.calls(LookUp) > 2,
        "the engine looks for the claim more than once"
    );
    assert!(setup.stored().await.is_none());
    assert_eq!(setup.claims(), 3);
}

#[tokio::test]
async fn drain_waits_until_a_claim_is_released() {
    let setup = start().await;
    setup.store.script(Claim, [DropReply]);
    setup.store.script(LookUp, [ErrBefore; 3]);
    let stream = setup.server.write(post_bytes("/count", "k", "")).await;
    eventually("the request claims", || setup.claims() == 1).await;
    drop(stream);
    eventually("the engine looks for the claim", || {
        setup.store.calls(LookUp) > 0
    })
    .await;
    assert_eq!(setup.idem.drain(LONG).await, 0);
    assert!(setup.stored().await.is_none());
}

/// The runtime drops its tasks and the pending claim with them. No new task can start then.
#[test]
fn a_runtime_shuts_down_while_a_claim_is_pending() {
    let runtime = tokio::runtime::Runtime::new().expect("a tokio runtime");
    runtime.block_on(async {
        let setup = start().await;
        setup.store.script(Claim, [DropReply]);
        let stream = setup.server.write(post_bytes("/count", "k", "")).await;
        eventually("the request claims", || setup.claims() == 1).await;
        // The connection must stay open until the runtime ends.
        std::mem::forget(stream);
    });
    let (ended, has_ended) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        drop(runtime);
        ended.send(())
    });
    has_ended
        .recv_timeout(PATIENCE)
        .expect("the runtime shuts down");
}

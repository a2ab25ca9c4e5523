//! The store fails while it is asked who runs.

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
async fn while_the_store_is_down_nothing_runs() {
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
    // What was claimed unheard is given back before its lease ends.
    assert_eq!(setup.retry("/count").await.text(), "1");
    assert_eq!(setup.runs.started(), 1);
}

#[tokio::test]
async fn a_service_can_choose_to_run_unprotected_and_says_so() {
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
async fn a_claim_that_fails_in_passing_is_tried_again() {
    let setup = start().await;
    setup.store.script(Claim, [ErrBefore, ErrBefore]);
    let begun = Instant::now();
    assert_eq!(setup.server.post("/count", "k", "").await.text(), "1");
    assert_eq!((setup.runs.started(), setup.claims()), (1, 3));
    // The store is given a moment, and then a longer one.
    assert!(begun.elapsed() >= Duration::from_millis(10 + 20));
}

/// A try that never ends takes half of the time, and leaves a slow store the rest.
#[tokio::test]
async fn a_claim_that_hangs_leaves_time_for_the_next_try() {
    let setup = start_waiting(OnStoreError::FailClosed, LONG, Duration::from_secs(2)).await;
    let slow = Delay(Duration::from_millis(5));
    setup.store.script(Claim, [Hang, slow, slow]);
    assert_eq!(setup.server.post("/count", "k", "").await.text(), "1");
    assert_eq!(setup.runs.started(), 1);
}

/// Without its owner's mark the second try would meet the first one's claim, and answer 409 to itself.
#[tokio::test]
async fn a_claim_whose_answer_was_lost_recognises_itself() {
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
async fn a_slow_store_is_waited_for() {
    let setup = start().await;
    setup
        .store
        .script(Claim, [Delay(Duration::from_millis(10))]);
    assert_eq!(setup.server.post("/count", "k", "").await.text(), "1");
    assert_eq!((setup.runs.started(), setup.claims()), (1, 1));
}

/// Asking again would not make it readable, and must not make it free.
#[tokio::test]
async fn what_cannot_be_read_is_refused() {
    let setup = start().await;
    setup.store.script(Claim, [Undecodable]);
    let answer = setup.server.post("/count", "k", "").await;
    assert_eq!(answer.code(), "idempotency_store_unavailable");
    assert_eq!(setup.runs.started(), 0);
}

#[tokio::test]
async fn being_in_flight_is_no_failure_to_try_again() {
    let setup = start().await;
    let _first = setup.server.write(post_bytes("/slow", "k", "")).await;
    setup.runs.until_started(1).await;
    assert_eq!(setup.server.post("/slow", "k", "").await.status, 409);
    assert_eq!(setup.claims(), 2);
}

/// Its client is gone before the store has said whether it may run.
#[tokio::test]
async fn a_claim_that_nobody_waits_for_is_given_back() {
    let setup = start().await;
    setup.store.script(Claim, [DropReply]);
    let stream = setup.server.write(post_bytes("/count", "k", "")).await;
    eventually("it claims", || setup.claims() == 1).await;
    drop(stream);
    assert_eq!(setup.retry("/count").await.text(), "1");
    assert_eq!(setup.runs.started(), 1);
}

/// Its lease is an hour, so that nothing else frees the key.
#[tokio::test]
async fn a_claim_that_cannot_be_given_back_at_once_is_given_back_later() {
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
        eventually("it claims", || setup.claims() == 1).await;
        drop(stream);
        assert_eq!(setup.retry("/held").await.text(), "1");
        assert_eq!(setup.runs.started(), 1);
    }
}

/// The store stands still, and then works off what it was sent.
#[tokio::test]
async fn a_claim_that_arrives_after_its_request_was_refused_is_given_back() {
    let setup = start().await;
    setup.store.script(Claim, [Pause; 3]);
    let refused = setup.server.post("/held", "k", "").await;
    assert_eq!(refused.code(), "idempotency_store_unavailable");
    eventually("it is looked for", || setup.store.calls(LookUp) > 1).await;
    assert!(setup.stored().await.is_none());
    setup.store.resume();
    setup.until_stored("it arrives", |it| it.is_some()).await;
    assert_eq!(setup.retry("/held").await.text(), "1");
    assert_eq!(setup.runs.started(), 1);
}

/// Nothing ran under it, so its key is not of unknown outcome either.
#[tokio::test]
async fn a_claim_that_lapsed_before_it_was_found_is_given_back() {
    let setup = start_with(OnStoreError::FailClosed, SHORT).await;
    setup.store.script(Claim, [DropReply; 3]);
    setup.store.script(LookUp, [Pause]);
    let refused = setup.server.post("/held", "k", "").await;
    assert_eq!(refused.code(), "idempotency_store_unavailable");
    let has_lapsed = |it: Option<&Entry>| matches!(it, Some(Entry::Unknown { .. }));
    setup.until_stored("it lapses", has_lapsed).await;
    setup.store.resume();
    setup
        .until_stored("it is given back", |it| it.is_none())
        .await;
    assert_eq!(setup.server.post("/held", "k", "").await.text(), "1");
}

/// To look for a claim sends none, which could be granted and get lost as well.
#[tokio::test]
async fn a_claim_that_never_arrived_is_looked_for_and_not_repeated() {
    let setup = start_with(OnStoreError::FailClosed, SHORT).await;
    setup.store.script(Claim, [ErrBefore; 3]);
    let refused = setup.server.post("/held", "k", "").await;
    assert_eq!(refused.code(), "idempotency_store_unavailable");
    assert_eq!(setup.idem.drain(LONG).await, 0);
    assert!(
        setup.store.calls(LookUp) > 2,
        "it is looked for more than once"
    );
    assert!(setup.stored().await.is_none());
    assert_eq!(setup.claims(), 3);
}

#[tokio::test]
async fn drain_waits_until_a_claim_is_given_back() {
    let setup = start().await;
    setup.store.script(Claim, [DropReply]);
    setup.store.script(LookUp, [ErrBefore; 3]);
    let stream = setup.server.write(post_bytes("/count", "k", "")).await;
    eventually("it claims", || setup.claims() == 1).await;
    drop(stream);
    eventually("it is looked for", || setup.store.calls(LookUp) > 0).await;
    assert_eq!(setup.idem.drain(LONG).await, 0);
    assert!(setup.stored().await.is_none());
}

/// The claim is given up while the runtime drops its tasks, which can start no other.
#[test]
fn a_runtime_that_ends_while_a_claim_is_unanswered_ends() {
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    runtime.block_on(async {
        let setup = start().await;
        setup.store.script(Claim, [DropReply]);
        let stream = setup.server.write(post_bytes("/count", "k", "")).await;
        eventually("it claims", || setup.claims() == 1).await;
        // The connection outlives the test's own part.
        std::mem::forget(stream);
    });
    let (ended, has_ended) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        drop(runtime);
        ended.send(())
    });
    has_ended.recv_timeout(PATIENCE).expect("it ends");
}

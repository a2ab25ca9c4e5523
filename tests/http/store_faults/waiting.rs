//! Tests a store that fails while requests wait for a first run.

use std::time::{Duration, Instant};

use axum::http::StatusCode;
use axum_idem::OnStoreError::FailOpen;
use axum_idem::Scope;
use axum_idem::testing::Fault::{DropReply, ErrAfter, ErrBefore};
use axum_idem::testing::Operation::{Claim, Complete, Renew};

use super::{LONG, start, start_with};
use crate::support::eventually;

#[tokio::test]
async fn waiters_poll_a_store_that_cannot_wake_them() {
    let setup = start().await;
    let (server, runs) = (setup.server, &setup.runs);
    let first = tokio::spawn(async move { server.post("/wait", "k", "").await });
    runs.until_started(1).await;
    let waiters: Vec<_> = (0..5)
        .map(|_| tokio::spawn(async move { server.post("/wait", "k", "").await }))
        .collect();
    eventually("all waiters have polled", || setup.claims() > 12).await;
    runs.open(1);
    assert_eq!(first.await.expect("no panic").text(), "1");
    for waiter in waiters {
        assert!(waiter.await.expect("no panic").is_replay());
    }
    assert_eq!(runs.started(), 1);
}

/// The pause between two polls doubles, up to half a second, and is randomized for each waiter.
#[tokio::test]
async fn waiters_back_off_between_polls() {
    const WAITERS: usize = 20;
    let setup = start().await;
    let (server, runs) = (setup.server, &setup.runs);
    let first = tokio::spawn(async move { server.post("/wait", "k", "").await });
    runs.until_started(1).await;
    let begun = Instant::now();
    let waiters: Vec<_> = (0..WAITERS)
        .map(|_| tokio::spawn(async move { server.post("/wait", "k", "").await }))
        .collect();
    tokio::time::sleep(Duration::from_secs(1)).await;
    let (looks, elapsed) = (setup.claims() - 1, begun.elapsed());
    runs.open(1);
    assert_eq!(first.await.expect("no panic").text(), "1");
    for waiter in waiters {
        assert!(waiter.await.expect("no panic").is_replay());
    }
    // The first poll, five while the pause grows from at least 10 ms, then one per 250 ms at least.
    let most = 7 + usize::try_from(elapsed.as_millis()).expect("a short time") / 250;
    assert!(looks >= 2 * WAITERS, "{looks} looks");
    assert!(looks <= WAITERS * most, "{looks} looks in {elapsed:?}");
}

#[tokio::test]
async fn a_failed_poll_of_a_waiter_is_retried() {
    let setup = start().await;
    let (server, runs) = (setup.server, &setup.runs);
    let first = tokio::spawn(async move { server.post("/wait", "k", "").await });
    runs.until_started(1).await;
    let waiter = tokio::spawn(async move { server.post("/wait", "k", "").await });
    eventually("the request waits", || setup.claims() >= 2).await;
    setup.store.script(Claim, [ErrBefore, ErrAfter]);
    let asked = setup.claims();
    eventually("the waiter polls again", || setup.claims() > asked + 3).await;
    runs.open(1);
    assert_eq!(first.await.expect("no panic").text(), "1");
    assert!(waiter.await.expect("no panic").is_replay());
    assert_eq!(runs.started(), 1);
}

#[tokio::test]
async fn a_waiter_is_refused_when_the_store_fails() {
    let setup = start().await;
    let (server, runs) = (setup.server, &setup.runs);
    let first = tokio::spawn(async move { server.post("/wait", "k", "").await });
    runs.until_started(1).await;
    let waiter = tokio::spawn(async move { server.post("/wait", "k", "").await });
    eventually("the request waits", || setup.claims() >= 2).await;
    setup.store.script(Claim, [ErrBefore; 3]);
    let refused = waiter.await.expect("no panic");
    assert_eq!(refused.code(), "idempotency_store_unavailable");
    setup.store.heal();
    runs.open(1);
    assert_eq!(first.await.expect("no panic").text(), "1");
    assert!(server.post("/wait", "k", "").await.is_replay());
    assert_eq!(runs.started(), 1);
}

/// The store has reported that the key is in flight, so a second run would be a duplicate.
#[tokio::test]
async fn a_waiter_does_not_run_when_the_store_fails_although_the_service_fails_open() {
    let setup = start_with(FailOpen, LONG).await;
    let (server, runs) = (setup.server, &setup.runs);
    let first = tokio::spawn(async move { server.post("/wait", "k", "").await });
    runs.until_started(1).await;
    let waiter = tokio::spawn(async move { server.post("/wait", "k", "").await });
    eventually("the request waits", || setup.claims() >= 2).await;
    setup.store.script(Claim, [ErrBefore; 3]);
    eventually("the waiter ends", || {
        waiter.is_finished() || runs.started() == 2
    })
    .await;
    assert_eq!(runs.started(), 1);
    let refused = waiter.await.expect("no panic");
    assert_eq!(refused.code(), "idempotency_store_unavailable");
    runs.open(1);
    assert_eq!(first.await.expect("no panic").text(), "1");
    assert!(server.post("/wait", "k", "").await.is_replay());
    assert_eq!(runs.started(), 1);
}

/// The lease is renewed, so the store reports "in flight" as long as the record is late.
#[tokio::test]
async fn a_waiter_gets_the_late_record() {
    let setup = start().await;
    let (server, runs) = (setup.server, &setup.runs);
    let first = tokio::spawn(async move { server.post("/wait", "k", "").await });
    runs.until_started(1).await;
    let waiter = tokio::spawn(async move { server.post("/wait", "k", "").await });
    eventually("the request waits", || setup.claims() >= 2).await;
    setup.store.script(Complete, [ErrBefore; 500]);
    runs.open(1);
    assert!(first.await.expect("no panic").is_unrecorded());
    let waiter = waiter.await.expect("no panic");
    assert_eq!((waiter.text(), waiter.is_replay()), ("1", true));
    assert_eq!(runs.started(), 1);
}

/// The earlier try may have been granted the claim long before, so the lease of the claim may be almost over.
#[tokio::test]
async fn a_claim_that_an_earlier_try_may_have_won_is_renewed_before_its_handler_runs() {
    let setup = start().await;
    let (server, runs) = (setup.server, &setup.runs);
    let first = tokio::spawn(async move { server.post("/wait", "k", "").await });
    runs.until_started(1).await;
    setup.store.script(Claim, [DropReply]);
    let second = tokio::spawn(async move { server.post("/wait", "k", "").await });
    eventually("the second request waits", || setup.claims() > 2).await;
    let id = setup.idem.record_id(&Scope::new(), "k");
    assert!(setup.idem.forget(id).await.expect("the store works"));
    runs.until_started(2).await;
    assert_eq!(setup.store.calls(Renew), 1);
    runs.open(2);
    assert_eq!(second.await.expect("no panic").status, StatusCode::OK);
    first.await.expect("no panic");
}

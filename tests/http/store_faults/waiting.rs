//! The store fails those who wait for a first run.

use std::time::{Duration, Instant};

use axum_idem::testing::Fault::{ErrAfter, ErrBefore};
use axum_idem::testing::Operation::{Claim, Complete};

use super::start;
use crate::support::eventually;

#[tokio::test]
async fn those_who_wait_look_again_where_the_store_cannot_wake_them() {
    let setup = start().await;
    let (server, runs) = (setup.server, &setup.runs);
    let first = tokio::spawn(async move { server.post("/wait", "k", "").await });
    runs.until_started(1).await;
    let waiters: Vec<_> = (0..5)
        .map(|_| tokio::spawn(async move { server.post("/wait", "k", "").await }))
        .collect();
    eventually("they wait", || setup.claims() > 12).await;
    runs.open(1);
    assert_eq!(first.await.expect("no panic").text(), "1");
    for waiter in waiters {
        assert!(waiter.await.expect("no panic").is_replay());
    }
    assert_eq!(runs.started(), 1);
}

/// Each look takes twice as long to come as the one before, up to half a second, and no two waiters
/// march in step.
#[tokio::test]
async fn those_who_wait_look_ever_more_rarely() {
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
    // The first, five while the pause grows from at least 10 ms, and then one each 250 ms at least.
    let most = 7 + usize::try_from(elapsed.as_millis()).expect("soon over") / 250;
    assert!(looks >= 2 * WAITERS, "{looks} looks");
    assert!(looks <= WAITERS * most, "{looks} looks in {elapsed:?}");
}

#[tokio::test]
async fn a_look_that_fails_in_passing_is_taken_again() {
    let setup = start().await;
    let (server, runs) = (setup.server, &setup.runs);
    let first = tokio::spawn(async move { server.post("/wait", "k", "").await });
    runs.until_started(1).await;
    let waiter = tokio::spawn(async move { server.post("/wait", "k", "").await });
    eventually("it waits", || setup.claims() >= 2).await;
    setup.store.script(Claim, [ErrBefore, ErrAfter]);
    let asked = setup.claims();
    eventually("it looks again", || setup.claims() > asked + 3).await;
    runs.open(1);
    assert_eq!(first.await.expect("no panic").text(), "1");
    assert!(waiter.await.expect("no panic").is_replay());
    assert_eq!(runs.started(), 1);
}

#[tokio::test]
async fn a_waiter_without_a_store_is_refused_and_changes_nothing() {
    let setup = start().await;
    let (server, runs) = (setup.server, &setup.runs);
    let first = tokio::spawn(async move { server.post("/wait", "k", "").await });
    runs.until_started(1).await;
    let waiter = tokio::spawn(async move { server.post("/wait", "k", "").await });
    eventually("it waits", || setup.claims() >= 2).await;
    setup.store.script(Claim, [ErrBefore; 3]);
    let refused = waiter.await.expect("no panic");
    assert_eq!(refused.code(), "idempotency_store_unavailable");
    setup.store.heal();
    runs.open(1);
    assert_eq!(first.await.expect("no panic").text(), "1");
    assert!(server.post("/wait", "k", "").await.is_replay());
    assert_eq!(runs.started(), 1);
}

/// The lease is renewed, so that the store says "in flight" for as long as the record is late.
#[tokio::test]
async fn a_waiter_gets_the_record_that_is_late() {
    let setup = start().await;
    let (server, runs) = (setup.server, &setup.runs);
    let first = tokio::spawn(async move { server.post("/wait", "k", "").await });
    runs.until_started(1).await;
    let waiter = tokio::spawn(async move { server.post("/wait", "k", "").await });
    eventually("it waits", || setup.claims() >= 2).await;
    setup.store.script(Complete, [ErrBefore; 500]);
    runs.open(1);
    assert!(first.await.expect("no panic").is_unrecorded());
    let waiter = waiter.await.expect("no panic");
    assert_eq!((waiter.text(), waiter.is_replay()), ("1", true));
    assert_eq!(runs.started(), 1);
}

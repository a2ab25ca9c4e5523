//! Tests store calls that were given up and arrive late.

use axum_idem::testing::Fault::Pause;
use axum_idem::testing::Operation::{Abandon, Claim, Complete, Release, Renew};
use axum_idem::{OnStoreError, Scope};

use super::{LONG, SHORT, start_with};
use crate::support::eventually;

#[tokio::test]
async fn a_late_claim_after_its_own_record_changes_nothing() {
    let setup = start_with(OnStoreError::FailClosed, LONG).await;
    setup.store.script(Claim, [Pause]);
    assert_eq!(setup.server.post("/count", "k", "").await.text(), "1");
    setup.store.resume();
    for _ in 0..3 {
        assert!(setup.server.post("/count", "k", "").await.is_replay());
    }
    assert_eq!(setup.runs.started(), 1);
}

/// The lease lasts an hour, and no attempt holds it.
#[tokio::test]
async fn a_late_claim_after_its_own_release_is_released() {
    let setup = start_with(OnStoreError::FailClosed, LONG).await;
    setup.store.script(Claim, [Pause]);
    assert_eq!(setup.server.post("/held-fail", "k", "").await.text(), "1");
    assert!(setup.stored().await.is_none(), "the key is released");
    setup.store.resume();
    setup
        .until_stored("the claim arrives", |it| it.is_some())
        .await;
    assert_eq!(setup.retry("/held-fail").await.text(), "2");
    assert_eq!(setup.runs.started(), 2);
}

/// The first try at the claim is delayed, while a later try finds another request in flight.
#[tokio::test]
async fn a_late_claim_after_its_own_409_is_released() {
    let setup = start_with(OnStoreError::FailClosed, LONG).await;
    let (server, runs, store) = (setup.server, &setup.runs, &setup.store);
    let first = tokio::spawn(async move { server.post("/slow", "k", "").await });
    runs.until_started(1).await;
    store.script(Claim, [Pause]);
    let refused = server.post("/slow", "k", "").await;
    assert_eq!(refused.code(), "idempotency_key_in_flight");
    // The operator frees the key, and then the claim arrives. Its lease lasts an hour, and no attempt
    // holds it.
    let id = setup.idem.record_id(&Scope::new(), "k");
    assert!(setup.idem.forget(id).await.expect("the store works"));
    store.resume();
    setup
        .until_stored("the claim arrives", |it| it.is_some())
        .await;
    setup
        .until_stored("the claim is released", |it| it.is_none())
        .await;
    runs.open(1);
    assert_eq!(first.await.expect("no panic").text(), "1");
}

/// A second run overtakes the first. Late calls of the first run meet the claim or the record of the
/// second.
#[tokio::test]
async fn late_calls_of_an_overtaken_run_change_nothing() {
    let setup = start_with(OnStoreError::FailClosed, SHORT).await;
    let (server, runs, store) = (setup.server, &setup.runs, &setup.store);
    store.script(Renew, [Pause; 8]);
    store.script(Complete, [Pause; 2]);
    let first = tokio::spawn(async move { server.post("/slow", "k", "").await });
    runs.until_started(1).await;
    // The renewals are delayed, so the lease lapses.
    let second = loop {
        let second = tokio::spawn(async move { server.post("/slow", "k", "").await });
        eventually("the second request is refused or runs", || {
            second.is_finished() || runs.started() == 2
        })
        .await;
        if runs.started() == 2 {
            break second;
        }
    };
    // The first client has its response while the record of the first run is still delayed.
    runs.open(2);
    let (first, second) = (first.await, second.await);
    let first = first.expect("no panic").text().to_owned();
    let second = second.expect("no panic").text().to_owned();
    store.heal();
    setup.idem.drain(LONG).await;
    let replay = server.post("/slow", "k", "").await;
    assert!(replay.is_replay());
    assert_ne!(first, second, "each client has the response of its own run");
    assert_eq!(
        replay.text(),
        second,
        "the record is that of the second run"
    );
    assert_eq!(runs.started(), 2);
    assert_eq!(store.calls(Release) + store.calls(Abandon), 0);
}

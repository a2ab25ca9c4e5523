//! What was sent and given up, and arrives when it no longer should.

use axum_idem::testing::Fault::Pause;
use axum_idem::testing::Operation::{Abandon, Claim, Complete, Release, Renew};
use axum_idem::{OnStoreError, Scope};

use super::{LONG, SHORT, start_with};
use crate::support::eventually;

#[tokio::test]
async fn a_claim_that_arrives_behind_its_own_record_changes_nothing() {
    let setup = start_with(OnStoreError::FailClosed, LONG).await;
    setup.store.script(Claim, [Pause]);
    assert_eq!(setup.server.post("/count", "k", "").await.text(), "1");
    setup.store.resume();
    for _ in 0..3 {
        assert!(setup.server.post("/count", "k", "").await.is_replay());
    }
    assert_eq!(setup.runs.started(), 1);
}

/// Its lease is an hour, and nobody holds it.
#[tokio::test]
async fn a_claim_that_arrives_behind_its_own_release_is_given_back() {
    let setup = start_with(OnStoreError::FailClosed, LONG).await;
    setup.store.script(Claim, [Pause]);
    assert_eq!(setup.server.post("/held-fail", "k", "").await.text(), "1");
    assert!(setup.stored().await.is_none(), "it is released");
    setup.store.resume();
    setup.until_stored("it arrives", |it| it.is_some()).await;
    assert_eq!(setup.retry("/held-fail").await.text(), "2");
    assert_eq!(setup.runs.started(), 2);
}

/// The first try at the claim is under way while a later try is told that another request runs.
#[tokio::test]
async fn a_claim_that_arrives_behind_its_own_refusal_is_given_back() {
    let setup = start_with(OnStoreError::FailClosed, LONG).await;
    let (server, runs, store) = (setup.server, &setup.runs, &setup.store);
    let first = tokio::spawn(async move { server.post("/slow", "k", "").await });
    runs.until_started(1).await;
    store.script(Claim, [Pause]);
    let refused = server.post("/slow", "k", "").await;
    assert_eq!(refused.code(), "idempotency_key_in_flight");
    // The operator frees the key, and the claim arrives. Its lease is an hour, and nobody holds it.
    let id = setup.idem.record_id(&Scope::new(), "k");
    assert!(setup.idem.forget(id).await.expect("the store is there"));
    store.resume();
    setup.until_stored("it arrives", |it| it.is_some()).await;
    setup
        .until_stored("it is given back", |it| it.is_none())
        .await;
    runs.open(1);
    assert_eq!(first.await.expect("no panic").text(), "1");
}

/// The first run is overtaken; whatever it sent meanwhile finds another's claim, or record.
#[tokio::test]
async fn whatever_arrives_from_an_overtaken_run_changes_nothing() {
    let setup = start_with(OnStoreError::FailClosed, SHORT).await;
    let (server, runs, store) = (setup.server, &setup.runs, &setup.store);
    store.script(Renew, [Pause; 8]);
    store.script(Complete, [Pause; 2]);
    let first = tokio::spawn(async move { server.post("/slow", "k", "").await });
    runs.until_started(1).await;
    // Its lease lapses, for its renewals are on their way.
    let second = loop {
        let second = tokio::spawn(async move { server.post("/slow", "k", "").await });
        eventually("it is refused, or runs", || {
            second.is_finished() || runs.started() == 2
        })
        .await;
        if runs.started() == 2 {
            break second;
        }
    };
    // Its own record is still on its way when it has answered its client.
    runs.open(2);
    let (first, second) = (first.await, second.await);
    let first = first.expect("no panic").text().to_owned();
    let second = second.expect("no panic").text().to_owned();
    store.heal();
    setup.idem.drain(LONG).await;
    let replay = server.post("/slow", "k", "").await;
    assert!(replay.is_replay());
    assert_ne!(first, second, "each client has its own answer");
    assert_eq!(replay.text(), second, "the record is the heir's");
    assert_eq!(runs.started(), 2);
    assert_eq!(store.calls(Release) + store.calls(Abandon), 0);
}

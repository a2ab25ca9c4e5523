//! The store fails while a lease is renewed.

use std::time::{Duration, Instant};

use axum_idem::OnStoreError;
use axum_idem::testing::Fault::{DropReply, ErrBefore, Hang};
use axum_idem::testing::Operation::{Claim, Renew};

use super::{LONG, SHORT, start_with};
use crate::support::{eventually, post_bytes};

/// A third of a lease apart, and a twentieth when the store fails.
#[tokio::test]
async fn a_lease_is_renewed_no_more_often_than_it_has_to() {
    for (faults, share) in [(0, 3), (1_000, 20)] {
        let setup = start_with(OnStoreError::FailClosed, SHORT).await;
        let (server, runs, store) = (setup.server, &setup.runs, &setup.store);
        store.script(Renew, std::iter::repeat_n(ErrBefore, faults));
        let _first = server.write(post_bytes("/slow", "k", "")).await;
        runs.until_started(1).await;
        let begun = Instant::now();
        tokio::time::sleep(2 * SHORT).await;
        let (renewals, elapsed) = (store.calls(Renew), begun.elapsed());
        let most = elapsed.as_millis() / (SHORT / share).as_millis() + 2;
        assert!(renewals >= 1, "it was never renewed");
        assert!(
            renewals as u128 <= most,
            "{renewals} renewals in {elapsed:?}"
        );
        runs.open(1);
    }
}

/// One that never answers is given up in time for the next.
#[tokio::test]
async fn a_renewal_that_hangs_ends_nothing() {
    let setup = start_with(OnStoreError::FailClosed, Duration::from_secs(3)).await;
    let (server, runs, store) = (setup.server, &setup.runs, &setup.store);
    store.script(Renew, [Hang, DropReply]);
    let first = tokio::spawn(async move { server.post("/slow", "k", "").await });
    eventually("the lease is renewed", || store.calls(Renew) >= 4).await;
    assert_eq!(
        server.post("/slow", "k", "").await.code(),
        "idempotency_key_in_flight"
    );
    runs.open(1);
    assert_eq!(first.await.expect("no panic").text(), "1");
    assert_eq!(runs.started(), 1);
}

/// The store lets another run, and the first one's answer is no record.
#[tokio::test]
async fn a_lease_that_cannot_be_renewed_lapses_and_its_run_settles_nothing() {
    let setup = start_with(OnStoreError::FailClosed, SHORT).await;
    let (server, runs, store) = (setup.server, &setup.runs, &setup.store);
    store.script(Renew, std::iter::repeat_n(ErrBefore, 1_000));
    let first = tokio::spawn(async move { server.post("/slow", "k", "").await });
    runs.until_started(1).await;
    let heir = tokio::spawn(async move {
        loop {
            let answer = server.post("/slow", "k", "").await;
            if answer.status != 409 {
                return answer;
            }
        }
    });
    runs.until_started(2).await;
    store.heal();
    runs.open(2);
    let (first, heir) = (first.await, heir.await);
    let (first, heir) = (first.expect("no panic"), heir.expect("no panic"));
    assert_ne!(first.text(), heir.text());
    assert_eq!(setup.idem.drain(LONG).await, 0);
    assert!(store.calls(Claim) >= 2);
    let replay = server.post("/slow", "k", "").await;
    assert!(replay.is_replay());
    assert_eq!(replay.text(), heir.text());
}

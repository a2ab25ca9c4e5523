//! Tests a store that fails while a lease is renewed.

use std::time::{Duration, Instant};

use axum_idem::OnStoreError;
use axum_idem::testing::Fault::{DropReply, ErrBefore, Hang};
use axum_idem::testing::Operation::{Claim, Renew};

use super::{LONG, SHORT, start_with};
use crate::support::{eventually, post_bytes};

/// The interval is a third of the lease, and a twentieth of the lease while the store fails.
#[tokio::test]
async fn renewals_are_rate_limited_even_when_they_fail() {
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
        assert!(renewals >= 1, "the lease was never renewed");
        assert!(
            renewals as u128 <= most,
            "{renewals} renewals in {elapsed:?}"
        );
        runs.open(1);
    }
}

/// A renewal without a reply times out early enough for the next renewal.
#[tokio::test]
async fn a_hanging_renewal_does_not_end_the_lease() {
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

/// The store grants the key to another run. The response of the first run is not recorded, and reaches no
/// client.
#[tokio::test]
async fn a_run_that_lost_its_lease_settles_nothing() {
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
    assert!(!heir.is_replay());
    if first.is_replay() {
        assert_eq!(first.text(), heir.text());
    } else {
        assert_eq!(first.code(), "idempotency_key_in_flight");
    }
    assert_eq!(setup.idem.drain(LONG).await, 0);
    assert!(store.calls(Claim) >= 2);
    let replay = server.post("/slow", "k", "").await;
    assert!(replay.is_replay());
    assert_eq!(replay.text(), heir.text());
}

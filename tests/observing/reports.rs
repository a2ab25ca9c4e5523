//! Each decision, each end and each call of the store is reported once.

use std::time::Duration;

use axum::http::{Method, StatusCode};
use axum_idem::OnStoreError;
use axum_idem::observe::{Decided, Observer};
use axum_idem::store::{MemoryStore, OnFull};
use axum_idem::testing::Fault::{ErrBefore, Hang};
use axum_idem::testing::Operation;

use crate::service::{Notes, Service};
use crate::support::{Server, eventually, post_bytes, request};

fn observed() -> (Service, Notes) {
    let notes = Notes::default();
    let service = Service::new(|builder| builder.observer(notes.clone()));
    (service, notes)
}

#[tokio::test]
async fn a_first_request_and_its_replay_are_reported() {
    let (service, notes) = observed();
    assert_eq!(
        service.send("/pay", "k", "1").await.status(),
        StatusCode::CREATED
    );
    assert_eq!(
        notes.take(),
        [
            "filled memory",
            "store memory claim done",
            "decided pay fresh",
            "started pay",
            "store memory complete done",
            "ended pay recorded bytes",
            "stopped pay request",
        ]
    );
    service.send("/pay", "k", "1").await;
    assert_eq!(
        notes.take(),
        ["store memory claim done", "decided pay replayed bytes"]
    );
    service.send("/pay", "k", "2").await;
    assert_eq!(
        notes.take(),
        ["store memory claim done", "decided pay mismatch"]
    );
}

#[tokio::test]
async fn every_end_of_an_attempt_is_reported() {
    let (service, notes) = observed();
    for (body, end, settles) in [
        ("panic", "ended pay unknown", "abandon"),
        ("unknown", "ended pay unknown", "abandon"),
        ("busy", "ended pay released", "release"),
    ] {
        service.send("/pay", body, body).await;
        // A panic settles in a separate task.
        service.idem.drain(Duration::from_secs(30)).await;
        let mut reports = notes.take();
        reports.retain(|line| line != "filled memory");
        let mut expected = vec![
            "store memory claim done".to_owned(),
            "decided pay fresh".to_owned(),
            "started pay".to_owned(),
            format!("store memory {settles} done"),
            end.to_owned(),
            "stopped pay request".to_owned(),
        ];
        reports.sort();
        expected.sort();
        assert_eq!(reports, expected, "{body}");
    }
    service.send("/hold", "k", "").await;
    service.send("/hold", "k", "").await;
    assert_eq!(notes.count("decided hold unknown"), 1);
    assert_eq!(notes.count("ended hold unknown"), 1);
}

/// The lease of the first attempt cannot be renewed, and its response is not recorded.
#[tokio::test]
async fn an_overtaken_attempt_is_reported() {
    let notes = Notes::default();
    let lease = Duration::from_millis(200);
    let service = Service::new(|builder| builder.lease(lease).observer(notes.clone()));
    let fails = std::iter::repeat_n(ErrBefore, 1_000);
    service.store.script(Operation::Renew, fails);
    let server = Server::start(service.router.clone()).await;
    let request = || tokio::spawn(async move { server.post("/wait", "k", "").await });
    let first = request();
    service.runs.until_started(1).await;
    let second = request();
    service.runs.until_started(2).await;
    service.runs.open(2);
    for request in [first, second] {
        assert_eq!(request.await.expect("no panic").status, StatusCode::OK);
    }
    service.idem.drain(Duration::from_secs(30)).await;
    for end in ["ended wait overtaken", "ended wait recorded"] {
        assert_eq!(notes.count(end), 1, "{end}");
    }
}

#[tokio::test]
async fn a_refused_key_is_reported_without_a_call_of_the_store() {
    let (service, notes) = observed();
    service.send("/pay", "a,b", "1").await;
    assert_eq!(notes.take(), ["decided pay refused"]);
}

#[tokio::test]
async fn a_request_without_a_key_is_not_reported() {
    let (service, notes) = observed();
    let server = Server::start(service.router).await;
    let headers = [("authorization", "Bearer t")];
    let answer = server
        .send(request(Method::POST, "/pay", headers, "1"))
        .await;
    assert_eq!(answer.status, StatusCode::CREATED);
    assert!(notes.take().is_empty());
}

#[tokio::test]
async fn a_client_that_disconnects_moves_its_attempt_to_the_background() {
    let (service, notes) = observed();
    let server = Server::start(service.router.clone()).await;
    let stream = server.write(post_bytes("/wait", "k", "")).await;
    service.runs.until_started(1).await;
    drop(stream);
    eventually("the attempt is detached", || {
        notes.count("detached wait") == 1
    })
    .await;
    let waiting = tokio::spawn(async move { server.post("/wait", "k", "").await });
    eventually("the second request asks again", || {
        service.store.calls(Operation::Claim) > 2
    })
    .await;
    service.runs.open(1);
    assert!(waiting.await.expect("no panic").is_replay());
    service.idem.drain(Duration::from_secs(30)).await;
    eventually("the attempt stops", || {
        notes.count("stopped wait background") == 1
    })
    .await;
    for (report, times) in [
        ("started wait", 1),
        ("stopped wait", 1),
        ("detached wait", 1),
        ("ended wait recorded", 1),
        ("waited wait replayed", 1),
        ("decided wait replayed", 1),
    ] {
        assert_eq!(notes.count(report), times, "{report}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_failing_store_is_reported_by_call_and_by_decision() {
    let (service, notes) = observed();
    service.store.script(Operation::Claim, [ErrBefore; 3]);
    service.send("/pay", "k", "1").await;
    service.idem.drain(Duration::from_secs(300)).await;
    assert_eq!(notes.count("store memory claim unavailable"), 3);
    assert_eq!(notes.count("decided pay store_error"), 1);
    assert_eq!(notes.count("started"), 0);

    service.store.script(Operation::Claim, [Hang; 3]);
    service.send("/pay", "k", "1").await;
    assert_eq!(notes.count("store memory claim dropped"), 3);
    service.idem.drain(Duration::from_secs(300)).await;

    service.store.script(Operation::Complete, [ErrBefore]);
    let response = service.send("/pay", "late", "1").await;
    assert_eq!(response.headers()["idempotency-degraded"], "unrecorded");
    service.idem.drain(Duration::from_secs(300)).await;
    assert_eq!(notes.count("unrecorded pay"), 1);
    assert_eq!(notes.count("ended pay recorded"), 1);
    assert_eq!(notes.count("stopped pay"), 1);
}

#[tokio::test(start_paused = true)]
async fn a_run_without_protection_is_reported_as_bypassed() {
    let notes = Notes::default();
    let service = Service::new(|builder| {
        builder
            .on_store_error(OnStoreError::FailOpen)
            .observer(notes.clone())
    });
    service.store.script(Operation::Claim, [ErrBefore; 3]);
    service.send("/pay", "k", "1").await;
    assert_eq!(notes.count("decided pay bypassed"), 1);
    assert_eq!(notes.count("decided"), 1);
}

#[tokio::test]
async fn a_full_store_and_its_evictions_are_reported() {
    let store = |on_full| MemoryStore::builder().max_bytes(1_000).on_full(on_full);
    let notes = Notes::default();
    let observe = |builder: axum_idem::IdempotencyBuilder| builder.observer(notes.clone());
    let service = Service::with_store(store(OnFull::Refuse).max_share(1.0).build(), observe);
    for key in ["a", "b", "c", "d", "e"] {
        service.send("/pay", key, "1").await;
    }
    assert!(notes.count("decided pay full") > 0, "{:?}", notes.take());
    notes.take();
    let store = store(OnFull::EvictOldest).max_share(1.0).build();
    let service = Service::with_store(store.clone(), observe);
    for key in ["a", "b", "c", "d", "e"] {
        service.send("/pay", key, "1").await;
    }
    assert!(store.evicted() > 0);
    let evicted = notes.count("evicted memory 1") as u64;
    assert_eq!(evicted, store.evicted());
}

/// A store that two services share reports to the first one only.
#[tokio::test]
async fn events_of_a_shared_store_are_reported_once() {
    let (store, first, second) = (MemoryStore::default(), Notes::default(), Notes::default());
    let one = Service::with_store(store.clone(), |builder| builder.observer(first.clone()));
    let two = Service::with_store(store, |builder| builder.observer(second.clone()));
    two.send("/pay", "k", "1").await;
    one.send("/pay", "k", "1").await;
    assert_eq!((first.count("filled"), second.count("filled")), (1, 0));
    assert_eq!((first.count("started"), second.count("started")), (0, 1));
}

struct Panics;

impl Observer for Panics {
    fn decided(&self, _: &Decided) {
        panic!("the observer panics");
    }

    fn attempt_started(&self, _: &'static str) {
        panic!("the observer panics");
    }
}

#[tokio::test]
async fn a_panic_of_the_observer_does_not_change_the_response() {
    let service = Service::new(|builder| builder.observer(Panics));
    for is_replay in [false, true] {
        let response = service.send("/pay", "k", "1").await;
        assert_eq!(response.status(), StatusCode::CREATED);
        let replayed = response.headers().contains_key("idempotency-replayed");
        assert_eq!(replayed, is_replay);
    }
    assert_eq!(service.runs.count(), 2, "the handler ran once");
}

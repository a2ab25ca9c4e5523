//! Which timeout wins: the shortest one decides what the client gets, and `max_run` alone ends a handler.

use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::post;
use axum_idem::store::{Entry, MemoryStore};
use axum_idem::testing::{Fault, FaultStore, Operation};
use axum_idem::{Idempotency, Scope, idempotent};
use test_support::http::{Answer, Runs, exchange, post as keyed};
use tower_http::timeout::TimeoutLayer;

const SECOND: Duration = Duration::from_secs(1);
const TIMED_OUT: StatusCode = StatusCode::REQUEST_TIMEOUT;

/// Takes as many seconds as the body says.
#[idempotent(scope = token, on_unknown = hold)]
async fn pay(State(runs): State<Runs>, seconds: String) -> (StatusCode, String) {
    let run = runs.count();
    tokio::time::sleep(SECOND * seconds.parse().expect("a number")).await;
    (StatusCode::CREATED, format!("run {run}"))
}

struct Service {
    store: FaultStore<MemoryStore>,
    idem: Idempotency,
    runs: Runs,
    router: Router,
}

impl Service {
    /// `store_timeout` is 5 seconds, and `max_run` one minute.
    fn new(outer_timeout: Option<Duration>) -> Self {
        let store = FaultStore::new(MemoryStore::default());
        let idem = Idempotency::builder()
            .store(store.clone())
            .max_run(SECOND * 60)
            .build();
        let runs = Runs::default();
        let mut router = Router::new()
            .route("/pay", post(pay))
            .layer(idem.clone())
            .with_state(runs.clone());
        if let Some(limit) = outer_timeout {
            router = router.layer(TimeoutLayer::with_status_code(TIMED_OUT, limit));
        }
        Self {
            store,
            idem,
            runs,
            router,
        }
    }

    async fn pay(&self, seconds: u32) -> Answer {
        let request = keyed("/pay", "k", &seconds.to_string());
        exchange(self.router.clone(), request).await
    }

    async fn entry(&self) -> Option<Entry> {
        let id = self
            .idem
            .record_id(&Scope::new().token("Bearer alice"), "k");
        self.idem.look_up(id).await.expect("memory is there")
    }
}

/// The store hangs, so the claim is limited by `store_timeout` or by the layer above.
#[tokio::test(start_paused = true)]
async fn the_shorter_of_store_timeout_and_outer_timeout_responds_to_a_hanging_claim() {
    for (outer, tries, status) in [
        (None, 3, StatusCode::SERVICE_UNAVAILABLE),
        (Some(SECOND * 10), 3, StatusCode::SERVICE_UNAVAILABLE),
        (Some(SECOND), 1, TIMED_OUT),
    ] {
        let service = Service::new(outer);
        let hangs = vec![Fault::Hang; tries];
        service.store.script(Operation::Claim, hangs);
        let answer = service.pay(0).await;
        assert_eq!(answer.status, status, "{outer:?}");
        if status == StatusCode::SERVICE_UNAVAILABLE {
            assert_eq!(answer.code(), "idempotency_store_unavailable");
        }
        assert_eq!(service.runs.started(), 0, "{outer:?}: the handler ran");
        service.idem.drain(SECOND * 300).await;
        assert_eq!(service.pay(0).await.status, StatusCode::CREATED);
    }
}

#[tokio::test(start_paused = true)]
async fn an_outer_timeout_responds_and_the_run_goes_on_until_its_end() {
    let service = Service::new(Some(SECOND * 10));
    assert_eq!(service.pay(20).await.status, TIMED_OUT);
    assert_eq!(service.pay(20).await.code(), "idempotency_key_in_flight");
    service.idem.drain(SECOND * 300).await;
    let retry = service.pay(20).await;
    assert!(retry.is_replay(), "{retry:?}");
    assert_eq!(service.runs.started(), 1);
}

#[tokio::test(start_paused = true)]
async fn max_run_ends_a_run_that_an_outer_timeout_has_left_behind() {
    for (outer, status) in [
        (None, StatusCode::GATEWAY_TIMEOUT),
        (Some(SECOND * 10), TIMED_OUT),
    ] {
        let service = Service::new(outer);
        let answer = service.pay(3_600).await;
        assert_eq!(answer.status, status, "{outer:?}");
        service.idem.drain(SECOND * 300).await;
        let entry = service.entry().await;
        assert!(matches!(entry, Some(Entry::Unknown { .. })), "{entry:?}");
        let retry = service.pay(3_600).await;
        assert_eq!(retry.code(), "idempotency_outcome_unknown");
    }
}

/// A lease limits a dead process, and not a run.
#[tokio::test(start_paused = true)]
async fn a_run_may_be_longer_than_its_lease() {
    let service = Service::new(None);
    let answer = service.pay(50).await;
    assert_eq!(answer.status, StatusCode::CREATED, "the lease is 30 s");
    assert!(service.pay(50).await.is_replay());
}

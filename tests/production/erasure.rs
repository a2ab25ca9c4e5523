//! Where a record stays after its scope was forgotten.

use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::post;
use axum_idem::store::{MemoryStore, NearCache};
use axum_idem::{Idempotency, Scope, idempotent};
use test_support::http::{Answer, Runs, exchange, post as keyed};

#[idempotent(scope = token)]
async fn pay(State(runs): State<Runs>) -> (StatusCode, String) {
    (StatusCode::CREATED, format!("run {}", runs.count()))
}

/// A process with a near cache in front of the shared store.
struct Process {
    idem: Idempotency,
    router: Router,
}

impl Process {
    fn new(store: &MemoryStore, runs: &Runs, max_age: Duration) -> Self {
        let cache = NearCache::builder().max_age(max_age).build(store.clone());
        let idem = Idempotency::builder().store(cache).build();
        let router = Router::new()
            .route("/pay", post(pay))
            .layer(idem.clone())
            .with_state(runs.clone());
        Self { idem, router }
    }

    async fn forget_alice(&self) -> u64 {
        let alice = Scope::new().token("Bearer alice");
        let forgotten = self.idem.forget_scope(&alice).await;
        forgotten.expect("memory is there")
    }

    async fn pay(&self) -> Answer {
        exchange(self.router.clone(), keyed("/pay", "k", "")).await
    }
}

#[tokio::test]
async fn a_near_cache_of_another_process_replays_an_erased_record_until_its_max_age() {
    let (store, runs) = (MemoryStore::default(), Runs::default());
    let long = Duration::from_hours(1);
    let (here, there) = (
        Process::new(&store, &runs, long),
        Process::new(&store, &runs, long),
    );
    assert_eq!(here.pay().await.text(), "run 1");
    assert!(there.pay().await.is_replay());
    assert_eq!(here.forget_alice().await, 1);
    assert!(there.pay().await.is_replay(), "the cache keeps the record");
    assert_eq!(here.pay().await.text(), "run 2", "nothing is left here");

    let none = Process::new(&store, &runs, Duration::ZERO);
    assert_eq!(here.forget_alice().await, 1);
    assert_eq!(none.pay().await.text(), "run 3");
}

//! Tests that background work stays in the tracing span of its request.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::State;
use axum::http::Method;
use axum::routing::post;
use axum_idem::store::MemoryStore;
use axum_idem::testing::{Fault, FaultStore, Operation};
use axum_idem::{Idempotency, idempotent};
use tower::ServiceExt;
use tracing::{Event, Instrument, Subscriber};
use tracing_subscriber::layer::{Context, Layer, SubscriberExt};
use tracing_subscriber::registry::LookupSpan;

use crate::support::{KEY, Runs, request};

#[idempotent(scope = global)]
async fn slow(State(runs): State<Runs>) -> String {
    let run = runs.pass().await;
    tracing::info!(target: "the handler", "the handler ends");
    run.to_string()
}

#[idempotent(scope = global)]
async fn count(State(runs): State<Runs>) -> String {
    runs.count().to_string()
}

/// Collects the span names of each event that has this target.
#[derive(Clone)]
struct Spans {
    target: &'static str,
    names: Arc<Mutex<Vec<Vec<String>>>>,
}

impl Spans {
    fn of(target: &'static str) -> Self {
        let names = Arc::default();
        Self { target, names }
    }

    fn take(&self) -> Vec<Vec<String>> {
        std::mem::take(&mut *self.names.lock().expect("no panic"))
    }
}

impl<S: Subscriber + for<'a> LookupSpan<'a>> Layer<S> for Spans {
    fn on_event(&self, event: &Event<'_>, context: Context<'_, S>) {
        if event.metadata().target() == self.target {
            let scope = context.event_scope(event).into_iter().flatten();
            let names = scope.map(|span| span.name().to_owned()).collect();
            self.names.lock().expect("no panic").push(names);
        }
    }
}

#[tokio::test]
async fn a_run_without_its_client_stays_in_the_span_of_its_request() {
    let spans = Spans::of("the handler");
    let subscriber = tracing_subscriber::registry().with(spans.clone());
    // A thread-wide default also covers spawned tasks. `with_subscriber` does not.
    let _guard = tracing::subscriber::set_default(subscriber);
    let (runs, idem) = (Runs::default(), Idempotency::in_memory());
    let router = Router::new()
        .route("/slow", post(slow))
        .layer(idem.clone())
        .with_state(runs.clone());
    let request = request(Method::POST, "/slow", [(KEY, "k")], "").map(Body::new);
    let answer = router.oneshot(request);
    let answer = tokio::spawn(answer.instrument(tracing::info_span!("the request")));
    runs.until_started(1).await;
    answer.abort();
    assert!(answer.await.is_err());
    runs.open(1);
    assert_eq!(idem.drain(Duration::from_secs(30)).await, 0);
    assert_eq!(spans.take(), [["the request"]]);
}

#[tokio::test]
async fn a_late_record_is_written_in_the_span_of_its_request() {
    let spans = Spans::of("axum_idem");
    let subscriber = tracing_subscriber::registry().with(spans.clone());
    let _guard = tracing::subscriber::set_default(subscriber);
    let store = FaultStore::new(MemoryStore::default());
    store.script(Operation::Complete, [Fault::ErrBefore]);
    let idem = Idempotency::builder().store(store).build();
    let router = Router::new()
        .route("/count", post(count))
        .layer(idem.clone())
        .with_state(Runs::default());
    let request = request(Method::POST, "/count", [(KEY, "k")], "").map(Body::new);
    let answer = router.oneshot(request);
    let answer = answer.instrument(tracing::info_span!("the request"));
    assert_eq!(answer.await.expect("a response").status(), 200);
    spans.take();
    assert_eq!(idem.drain(Duration::from_secs(30)).await, 0);
    assert_eq!(
        spans.take(),
        [["the request"]],
        "the event of the record is in the span"
    );
}

//! What a handler keeps that runs on without its client: the span of its request.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::State;
use axum::http::Method;
use axum::routing::post;
use axum_idem::{Idempotency, idempotent};
use tower::ServiceExt;
use tracing::{Event, Instrument, Subscriber};
use tracing_subscriber::layer::{Context, Layer, SubscriberExt};
use tracing_subscriber::registry::LookupSpan;

use crate::support::{KEY, Runs, request};

#[idempotent(scope = global)]
async fn slow(State(runs): State<Runs>) -> String {
    let run = runs.pass().await;
    tracing::info!(target: "the handler", "it ends");
    run.to_string()
}

/// The names of the spans in which the handler says that it ends.
#[derive(Clone, Default)]
struct Spans(Arc<Mutex<Vec<String>>>);

impl<S: Subscriber + for<'a> LookupSpan<'a>> Layer<S> for Spans {
    fn on_event(&self, event: &Event<'_>, context: Context<'_, S>) {
        if event.metadata().target() == "the handler" {
            let scope = context.event_scope(event).into_iter().flatten();
            let names = scope.map(|span| span.name().to_owned());
            self.0.lock().expect("no panic").extend(names);
        }
    }
}

#[tokio::test]
async fn a_run_that_lost_its_client_stays_in_the_span_of_its_request() {
    let spans = Spans::default();
    let subscriber = tracing_subscriber::registry().with(spans.clone());
    // For what this thread spawns too: a task of its own is not under `with_subscriber`.
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
    assert_eq!(*spans.0.lock().expect("no panic"), ["the request"]);
}

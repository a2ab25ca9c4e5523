//! The levels of the log, and the link from a replay to the trace of its first request.

use std::fmt::Debug;
use std::sync::{Arc, Mutex, Once};

use axum::Router;
use axum::body::Body;
use axum::routing::post;
use axum_idem::store::MemoryStore;
use axum_idem::testing::Fault::ErrBefore;
use axum_idem::testing::Operation;
use axum_idem::{Attempt, CommitError, Idempotency, OnStoreError, Prepared, Scope};
use tower::ServiceExt;
use tracing::field::{Field, Visit};
use tracing::instrument::WithSubscriber;
use tracing::{Event, Instrument, Subscriber, span};
use tracing_subscriber::layer::{Context, Layer, SubscriberExt};

use crate::service::Service;
use crate::support;

/// Notes the level and some fields of each event, and the fields of each span.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<String>>>, Option<&'static [&'static str]>);

impl Log {
    fn take(&self) -> Vec<String> {
        std::mem::take(&mut *self.0.lock().expect("no panic"))
    }
}

struct Only(&'static [&'static str], String);

impl Visit for Only {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        if self.0.contains(&field.name()) {
            self.1 += &format!(" {}={value:?}", field.name()).replace('"', "");
        }
    }
}

impl<S: Subscriber> Layer<S> for Log {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        if event.metadata().target() == "axum_idem" {
            let noted = self.1.unwrap_or(&["outcome", "first_trace_id"]);
            let mut fields = Only(noted, String::new());
            event.record(&mut fields);
            let line = format!("{}{}", event.metadata().level(), fields.1);
            self.0.lock().expect("no panic").push(line);
        }
    }

    fn on_record(&self, _: &span::Id, values: &span::Record<'_>, _: Context<'_, S>) {
        let mut fields = Only(&["outcome", "first_trace_id"], String::new());
        values.record(&mut fields);
        self.0
            .lock()
            .expect("no panic")
            .push(format!("span{}", fields.1));
    }
}

/// Installs a global subscriber that ignores everything. With only one subscriber of one thread, `tracing` lets a
/// thread without a subscriber turn an event off for the whole process.
fn keep_events_on() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let ignores = tracing_subscriber::registry();
        tracing::subscriber::set_global_default(ignores).expect("no other global subscriber");
    });
}

async fn logged(service: &Service, path: &str, key: &str, body: &str) -> Vec<String> {
    keep_events_on();
    let log = Log::default();
    let send = service.send(path, key, body);
    send.with_subscriber(tracing_subscriber::registry().with(log.clone()))
        .await;
    log.take()
}

#[tokio::test(start_paused = true)]
async fn events_that_need_an_operator_are_at_info_or_warn() {
    let service = Service::new(|builder| builder);
    assert_eq!(
        logged(&service, "/pay", "k", "1").await,
        ["DEBUG outcome=fresh", "DEBUG outcome=recorded"]
    );
    assert_eq!(
        logged(&service, "/pay", "u", "unknown").await,
        ["DEBUG outcome=fresh", "INFO outcome=unknown"]
    );
    // The handler runs again.
    assert_eq!(
        logged(&service, "/pay", "u", "unknown").await,
        ["INFO outcome=fresh", "INFO outcome=unknown"]
    );
    assert_eq!(
        logged(&service, "/hold", "k", "1").await,
        ["DEBUG outcome=fresh", "INFO outcome=unknown"]
    );
    assert_eq!(
        logged(&service, "/hold", "k", "1").await,
        ["WARN outcome=unknown"]
    );
    service.store.script(Operation::Claim, [ErrBefore; 3]);
    assert_eq!(
        logged(&service, "/pay", "e", "1").await,
        ["WARN outcome=store_error"]
    );
    service.store.script(Operation::Complete, [ErrBefore; 1]);
    assert_eq!(
        logged(&service, "/pay", "late", "1").await,
        ["DEBUG outcome=fresh", "WARN outcome=recorded"]
    );
    let open = Service::new(|builder| builder.on_store_error(OnStoreError::FailOpen));
    open.store.script(Operation::Claim, [ErrBefore; 3]);
    assert_eq!(
        logged(&open, "/pay", "e", "1").await,
        ["WARN outcome=bypassed"]
    );
    let full = MemoryStore::builder().max_bytes(0).build();
    let full = Service::with_store(full, |builder| builder);
    assert_eq!(logged(&full, "/pay", "k", "1").await, ["WARN outcome=full"]);
}

#[tokio::test]
async fn a_replay_names_the_trace_of_its_first_request() {
    keep_events_on();
    let service = Service::new(|builder| builder);
    let log = Log::default();
    let send = async |trace: &str| {
        let mut request = support::post("/pay", "k", "1").map(Body::new);
        let traceparent = format!("00-{trace}-b7ad6b7169203331-01");
        let traceparent = traceparent.parse().expect("a header value");
        request.headers_mut().insert("traceparent", traceparent);
        let span = tracing::info_span!(
            "request",
            outcome = tracing::field::Empty,
            first_trace_id = tracing::field::Empty
        );
        let router = service.router.clone();
        router
            .oneshot(request)
            .instrument(span)
            .await
            .expect("infallible");
        log.take()
    };
    let check = async {
        let first = "0af7651916cd43dd8448eb211c80319c";
        send(first).await;
        let replayed = send("11111111111111111111111111111111").await;
        assert_eq!(
            replayed,
            [
                "span outcome=replayed".to_owned(),
                format!("span first_trace_id={first}"),
                format!("DEBUG outcome=replayed first_trace_id={first}"),
            ]
        );
    };
    check
        .with_subscriber(tracing_subscriber::registry().with(log.clone()))
        .await;
}

/// The store in memory has no transactions.
#[axum_idem::idempotent(scope = global)]
async fn commits(attempt: Attempt) -> Result<Prepared, CommitError> {
    attempt.prepare("paid").await
}

#[tokio::test]
async fn the_error_of_a_commit_names_its_endpoint_and_its_record() {
    keep_events_on();
    let log = Log(Arc::default(), Some(&["endpoint", "record", "error"]));
    let idem = Idempotency::in_memory();
    let router = Router::new().route("/", post(commits)).layer(idem.clone());
    let sent = router.oneshot(support::post("/", "k", "").map(Body::new));
    sent.with_subscriber(tracing_subscriber::registry().with(log.clone()))
        .await
        .expect("infallible");
    let mut errors = log.take();
    errors.retain(|line| line.starts_with("ERROR"));
    let record = idem.record_id(&Scope::new(), "k").short().to_string();
    let [error] = &errors[..] else {
        panic!("one error: {errors:?}");
    };
    assert!(error.contains(&format!(" record={record}")), "{error}");
    assert!(error.contains("commits"), "{error}");
}

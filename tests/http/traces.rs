//! Tests that each decision emits one event, and that no event contains a secret.

use std::collections::BTreeMap;
use std::fmt::{Debug, Write as _};
use std::sync::{Arc, Mutex, Once};

use axum::Router;
use axum::extract::{Request, State};
use axum::http::{Method, StatusCode};
use axum::routing::post;
use axum_idem::{Idempotency, idempotent};
use tower::ServiceExt;
use tower_http::catch_panic::CatchPanicLayer;
use tracing::field::{Field, Visit};
use tracing::instrument::WithSubscriber;
use tracing::{Event, Subscriber, span};
use tracing_subscriber::layer::{Context, Layer, SubscriberExt};

use crate::support::{KEY, Runs, request};

#[tracing::instrument(skip_all, fields(outcome))]
async fn spanned(request: Request, next: axum::middleware::Next) -> axum::response::Response {
    next.run(request).await
}

#[idempotent(scope = token)]
async fn count(State(runs): State<Runs>, body: String) -> (StatusCode, String) {
    assert_ne!(body, "panic");
    let status = body
        .parse()
        .ok()
        .and_then(|code| StatusCode::from_u16(code).ok());
    (status.unwrap_or_default(), runs.count().to_string())
}

#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<BTreeMap<String, String>>>>);

struct Fields<'a>(&'a mut BTreeMap<String, String>);

impl Visit for Fields<'_> {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        let mut text = String::new();
        write!(text, "{value:?}").expect("the write succeeds");
        self.0
            .insert(field.name().into(), text.trim_matches('"').into());
    }
}

impl<S: Subscriber> Layer<S> for Log {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        if event.metadata().target() == "axum_idem" {
            let mut fields = BTreeMap::new();
            event.record(&mut Fields(&mut fields));
            self.0.lock().expect("no panic").push(fields);
        }
    }

    fn on_record(&self, _: &span::Id, values: &span::Record<'_>, _: Context<'_, S>) {
        let mut fields = BTreeMap::from([("on".into(), "span".into())]);
        values.record(&mut Fields(&mut fields));
        self.0.lock().expect("no panic").push(fields);
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

#[tokio::test]
async fn each_decision_emits_one_event_and_sets_a_span_field() {
    keep_events_on();
    let router = Router::new()
        .route("/count", post(count))
        .layer(CatchPanicLayer::new())
        .layer(Idempotency::in_memory())
        .layer(axum::middleware::from_fn(spanned))
        .with_state(Runs::default());
    let log = Log::default();
    let send = async |key: Option<&str>, body: &str| {
        let headers = [("authorization", "Bearer SECRET-token")];
        let headers = headers.into_iter().chain(key.map(|key| (KEY, key)));
        let request = request(Method::POST, "/count", headers, body).map(axum::body::Body::new);
        router.clone().oneshot(request).await.expect("infallible");
        let (mut events, mut spans) = (Vec::new(), Vec::new());
        for fields in log.0.lock().expect("no panic").drain(..) {
            let all = format!("{fields:?}");
            assert!(!all.contains("SECRET"), "{all}");
            if fields.contains_key("on") {
                spans.push(fields["outcome"].clone());
                continue;
            }
            assert!(fields["endpoint"].ends_with("traces::count"), "{all}");
            let is_keyed = key.is_some_and(|key| !key.contains(','));
            assert_eq!(
                fields.get("record").map(String::len),
                is_keyed.then_some(12),
                "{all}"
            );
            events.push(fields["outcome"].clone());
        }
        (events.join(" "), spans.join(" "))
    };
    let check = async {
        let outcomes = |events: &str, span: &str| (events.to_owned(), span.to_owned());
        assert_eq!(
            send(Some("SECRET-k"), "200").await,
            outcomes("fresh recorded", "fresh")
        );
        assert_eq!(
            send(Some("SECRET-k"), "200").await,
            outcomes("replayed", "replayed")
        );
        assert_eq!(
            send(Some("SECRET-k"), "201").await,
            outcomes("mismatch", "mismatch")
        );
        assert_eq!(
            send(Some("SECRET-f"), "500").await,
            outcomes("fresh released", "fresh")
        );
        assert_eq!(
            send(Some("SECRET-p"), "panic").await,
            outcomes("fresh unknown", "fresh")
        );
        assert_eq!(
            send(Some("SECRET,k"), "200").await,
            outcomes("refused", "refused")
        );
        assert_eq!(send(None, "200").await, outcomes("bypassed", "bypassed"));
    };
    check
        .with_subscriber(tracing_subscriber::registry().with(log.clone()))
        .await;
}

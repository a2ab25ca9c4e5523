//! Without a layer, keys are kept in the process, and the log says so once. A process of its own,
//! since that is said once for each.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use axum::Router;
use axum::body::Body;
use axum::http::Request;
use axum::routing::post;
use axum_idem::idempotent;
use tower::ServiceExt;
use tracing::instrument::WithSubscriber;
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::layer::{Context, Layer, SubscriberExt};

#[idempotent(scope = global)]
async fn protected() -> &'static str {
    "ran"
}

#[derive(Clone, Default)]
struct Warnings(Arc<AtomicUsize>);

impl<S: Subscriber> Layer<S> for Warnings {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let metadata = event.metadata();
        if metadata.target() == "axum_idem" && *metadata.level() == Level::WARN {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }
}

#[tokio::test]
async fn a_layer_that_is_missing_is_warned_of_once_and_only_when_it_would_matter() {
    let warnings = Warnings::default();
    let router = Router::new().route("/", post(protected));
    let send = async |key: Option<&str>| {
        let mut request = Request::post("/");
        if let Some(key) = key {
            request = request.header("idempotency-key", key);
        }
        let request = request.body(Body::empty()).expect("a request");
        let answer = router.clone().oneshot(request).await.expect("infallible");
        answer.headers().contains_key("idempotency-replayed")
    };
    let check = async {
        assert!(!send(None).await);
        assert_eq!(warnings.0.load(Ordering::SeqCst), 0);
        assert!(!send(Some("k")).await);
        assert!(send(Some("k")).await);
        assert!(!send(Some("other")).await);
        assert_eq!(warnings.0.load(Ordering::SeqCst), 1);
    };
    let subscriber = tracing_subscriber::registry().with(warnings.clone());
    check.with_subscriber(subscriber).await;
}

//! Checks that a keyed request without an `Idempotency` layer is refused, and that the log says what to
//! add.

use std::fmt::Debug;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, Once};

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{HeaderValue, Method, StatusCode};
use axum::middleware::map_request;
use axum::response::Response;
use axum::routing::post;
use axum_idem::{Idempotency, IdempotencyKey, Problem, idempotent};
use http_body_util::BodyExt;
use tower::ServiceExt;
use tracing::field::Field;
use tracing::instrument::WithSubscriber;
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::layer::{Context, Layer, SubscriberExt};

#[derive(Clone, Default)]
struct Runs(Arc<AtomicUsize>);

impl Runs {
    fn count(&self) -> usize {
        self.0.load(Ordering::SeqCst)
    }
}

#[idempotent(scope = global)]
async fn protected(State(runs): State<Runs>) {
    runs.0.fetch_add(1, Ordering::SeqCst);
}

#[idempotent(scope = global, required)]
async fn required(State(runs): State<Runs>) {
    runs.0.fetch_add(1, Ordering::SeqCst);
}

#[idempotent(scope = global)]
async fn logs_its_key(key: Option<IdempotencyKey>, State(runs): State<Runs>) {
    drop(key);
    runs.0.fetch_add(1, Ordering::SeqCst);
}

#[idempotent(scope = global, key = header("x-delivery"))]
async fn delivered(State(runs): State<Runs>) {
    runs.0.fetch_add(1, Ordering::SeqCst);
}

fn routes() -> Router<Runs> {
    Router::new()
        .route("/delivered", post(delivered).get(delivered))
        .route("/protected", post(protected).get(protected))
        .route("/required", post(required))
        .route("/logs-its-key", post(logs_its_key))
}

/// Counts the errors and warnings of this crate, and keeps the last message.
#[derive(Clone, Default)]
struct Events {
    message: Arc<Mutex<String>>,
    errors: Arc<AtomicUsize>,
    warnings: Arc<AtomicUsize>,
}

impl<S: Subscriber> Layer<S> for Events {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let metadata = event.metadata();
        if metadata.target() == "axum_idem" {
            event.record(&mut |field: &Field, value: &dyn Debug| {
                if field.name() == "message" {
                    *self.message.lock().expect("no panic") = format!("{value:?}");
                }
            });
            match *metadata.level() {
                Level::ERROR => self.errors.fetch_add(1, Ordering::SeqCst),
                Level::WARN => self.warnings.fetch_add(1, Ordering::SeqCst),
                _ => 0,
            };
        }
    }
}

impl Events {
    fn seen(&self) -> [usize; 2] {
        [&self.errors, &self.warnings].map(|count| count.load(Ordering::SeqCst))
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

async fn send(router: &Router, method: Method, path: &str, key: Option<&str>) -> Response {
    let mut request = Request::new(Body::empty());
    *request.method_mut() = method;
    *request.uri_mut() = path.parse().expect("a valid path");
    if let Some(key) = key {
        let key = HeaderValue::from_str(key).expect("a header value");
        request.headers_mut().insert("idempotency-key", key);
    }
    router.clone().oneshot(request).await.expect("infallible")
}

async fn text(response: Response) -> String {
    let body = response.into_body().collect().await.expect("a body");
    String::from_utf8(body.to_bytes().into()).expect("UTF-8")
}

async fn code(response: Response) -> String {
    let problem: serde_json::Value = serde_json::from_str(&text(response).await).expect("JSON");
    problem["code"].as_str().expect("a problem code").to_owned()
}

#[tokio::test]
async fn without_a_layer_a_keyed_request_is_refused_and_logged() {
    keep_events_on();
    let (runs, events) = (Runs::default(), Events::default());
    let router = routes().with_state(runs.clone());
    let check = async {
        for path in ["/protected", "/required", "/logs-its-key"] {
            let refused = send(&router, Method::POST, path, Some("SECRET")).await;
            assert_eq!(refused.status(), StatusCode::INTERNAL_SERVER_ERROR);
            let body = text(refused).await;
            assert!(body.contains("idempotency_not_installed"), "{body}");
            assert!(!body.contains("SECRET"), "{body}");
        }
    };
    let subscriber = tracing_subscriber::registry().with(events.clone());
    check.with_subscriber(subscriber).await;
    assert_eq!((runs.count(), events.seen()), (0, [3, 0]));
}

/// Only an `Idempotency` can check the key, so a write without a key is refused too.
#[tokio::test]
async fn without_a_layer_every_write_of_an_endpoint_with_its_own_key_is_refused() {
    keep_events_on();
    let (runs, events) = (Runs::default(), Events::default());
    let router = routes().with_state(runs.clone());
    let check = async {
        let refused = send(&router, Method::POST, "/delivered", None).await;
        assert_eq!(refused.status(), StatusCode::INTERNAL_SERVER_ERROR);
        assert_eq!(code(refused).await, "idempotency_not_installed");
        let message = events.message.lock().expect("no panic").clone();
        for part in ["`key = …`", "`.layer(idempotency)`", "`runtime = …`"] {
            assert!(message.contains(part), "{message}");
        }
        let read = send(&router, Method::GET, "/delivered", None).await;
        assert_eq!(read.status(), StatusCode::OK);
    };
    let subscriber = tracing_subscriber::registry().with(events.clone());
    check.with_subscriber(subscriber).await;
    assert_eq!((runs.count(), events.seen()), (1, [1, 0]));
}

#[tokio::test]
async fn without_a_layer_a_keyless_request_runs_and_nothing_is_logged() {
    keep_events_on();
    let (runs, events) = (Runs::default(), Events::default());
    let router = routes().with_state(runs.clone());
    let check = async {
        for path in ["/protected", "/logs-its-key"] {
            let response = send(&router, Method::POST, path, None).await;
            assert_eq!(response.status(), StatusCode::OK, "{path}");
        }
        let read = send(&router, Method::GET, "/protected", Some("k")).await;
        assert_eq!(read.status(), StatusCode::OK);
        let refused = send(&router, Method::POST, "/required", None).await;
        assert_eq!(code(refused).await, "idempotency_key_missing");
    };
    let subscriber = tracing_subscriber::registry().with(events.clone());
    check.with_subscriber(subscriber).await;
    assert_eq!((runs.count(), events.seen()), (3, [0, 0]));
}

/// A layer inserts nothing when there is no key. That is no reason to warn.
#[tokio::test]
async fn below_a_layer_a_keyless_request_runs_and_nothing_is_logged() {
    keep_events_on();
    let (runs, events) = (Runs::default(), Events::default());
    let router = routes().layer(Idempotency::in_memory());
    let router = router.with_state(runs.clone());
    let check = async {
        for path in ["/protected", "/logs-its-key"] {
            let response = send(&router, Method::POST, path, None).await;
            assert_eq!(response.status(), StatusCode::OK, "{path}");
        }
    };
    let subscriber = tracing_subscriber::registry().with(events.clone());
    check.with_subscriber(subscriber).await;
    assert_eq!((runs.count(), events.seen()), (2, [0, 0]));
}

/// `Router::layer` applies only to the routes that already exist.
#[tokio::test]
async fn a_keyed_request_to_a_route_added_after_the_layer_is_refused() {
    let runs = Runs::default();
    let router = Router::new()
        .route("/above", post(protected))
        .layer(Idempotency::in_memory())
        .route("/below", post(protected))
        .with_state(runs.clone());
    let protected = send(&router, Method::POST, "/above", Some("k")).await;
    assert_eq!(protected.status(), StatusCode::OK);
    let refused = send(&router, Method::POST, "/below", Some("k")).await;
    assert_eq!(code(refused).await, "idempotency_not_installed");
    assert_eq!(runs.count(), 1);
}

/// The layer did not see the key, but it still renders the problem in the service's format.
#[tokio::test]
async fn a_key_set_by_middleware_below_the_layer_is_refused() {
    let sets_the_key = || {
        map_request(|mut request: Request| async {
            let key = HeaderValue::from_static("of-the-middleware");
            request.headers_mut().insert("idempotency-key", key);
            request
        })
    };
    let render = |problem: &Problem| (problem.status(), problem.code());
    let idem = Idempotency::builder().render_problem(render).build();
    let runs = Runs::default();
    let below = routes().layer(sets_the_key()).layer(idem.clone());
    let below = below.with_state(runs.clone());
    let refused = send(&below, Method::POST, "/protected", None).await;
    assert_eq!(text(refused).await, "idempotency_not_installed");
    assert_eq!(runs.count(), 0);

    let above = routes().layer(idem).layer(sets_the_key());
    let above = above.with_state(runs.clone());
    for is_replay in [false, true] {
        let response = send(&above, Method::POST, "/protected", None).await;
        let headers = response.headers();
        assert_eq!(headers.contains_key("idempotency-replayed"), is_replay);
    }
    assert_eq!(runs.count(), 1);
}

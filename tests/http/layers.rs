//! Tests which settings a handler gets and how a service renders problems.

use std::convert::Infallible;
use std::future::Ready;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use axum::Router;
use axum::extract::{Extension, FromRef, Json, State};
use axum::http::{Method, Request, StatusCode};
use axum::middleware::map_request;
use axum::routing::post;
use axum_idem::{Dialect, Idempotency, Problem, idempotent};
use tower::{Layer, Service, ServiceBuilder, ServiceExt};
use tower_http::compression::CompressionLayer;
use tower_http::cors::CorsLayer;

use crate::support::{KEY, Runs, Server, post_bytes, request};

#[idempotent(scope = token)]
async fn count(State(runs): State<Runs>) -> String {
    runs.count().to_string()
}

#[idempotent(scope = token, required)]
async fn required(State(runs): State<Runs>) -> String {
    runs.count().to_string()
}

#[idempotent(scope = global)]
async fn slow(State(runs): State<Runs>) -> String {
    runs.pass().await.to_string()
}

fn router(runs: &Runs) -> Router {
    Router::new()
        .route("/count", post(count))
        .route("/required", post(required))
        .route("/slow", post(slow))
        .with_state(runs.clone())
}

async fn start(idem: Idempotency) -> (Server, Runs) {
    let runs = Runs::default();
    (Server::start(router(&runs).layer(idem)).await, runs)
}

#[tokio::test]
async fn namespaces_in_one_store_are_separate() {
    let (runs, store) = (Runs::default(), axum_idem::store::MemoryStore::default());
    let of = |namespace: &str| {
        let idem = Idempotency::builder()
            .store(store.clone())
            .namespace(namespace)
            .build();
        Server::start(router(&runs).layer(idem))
    };
    let (sandbox, production, again) = (
        of("sandbox").await,
        of("production").await,
        of("production").await,
    );
    assert!(!sandbox.post("/count", "k", "").await.is_replay());
    assert!(!production.post("/count", "k", "").await.is_replay());
    assert!(again.post("/count", "k", "").await.is_replay());
    assert_eq!(runs.started(), 2);
}

#[tokio::test]
async fn the_innermost_layer_decides_the_settings() {
    let runs = Runs::default();
    let inner = Idempotency::builder()
        .dialect(Dialect::default().replay_header("x-inner"))
        .build();
    let outer = Idempotency::builder()
        .dialect(Dialect::default().key_header("x-outer-key"))
        .build();
    let router = Router::new()
        .nest("/inner", router(&runs).layer(inner))
        .merge(router(&runs))
        .layer(outer);
    let server = Server::start(router).await;
    let both = [(KEY, "k"), ("x-outer-key", "k"), ("authorization", "a")];
    for is_replay in [false, true] {
        let answer = server
            .send(request(Method::POST, "/inner/count", both, ""))
            .await;
        assert_eq!(answer.headers.contains_key("x-inner"), is_replay);
    }
    // The key header of the inner layer is missing. The key header of the outer layer has no effect
    // here.
    for _ in 0..2 {
        let outer = [("x-outer-key", "k"), ("authorization", "a")];
        let answer = server
            .send(request(Method::POST, "/inner/count", outer, ""))
            .await;
        assert!(!answer.headers.contains_key("x-inner"));
    }
    assert_eq!(runs.started(), 3);
}

/// A layer below may change the type of the body.
#[tokio::test]
async fn the_layer_composes_with_layers_that_change_the_body_type() {
    let runs = Runs::default();
    let layers = ServiceBuilder::new()
        .layer(CompressionLayer::new())
        .layer(Idempotency::in_memory())
        .layer(CompressionLayer::new());
    let router = Router::new()
        .route("/count", post(count).layer(layers))
        .with_state(runs.clone());
    let server = Server::start(router).await;
    assert!(!server.post("/count", "k", "").await.is_replay());
    assert!(server.post("/count", "k", "").await.is_replay());
}

/// A layer below removes the key that the `Idempotency` layer saw. The handler must see no key.
#[tokio::test]
async fn a_key_removed_below_the_layer_counts_as_missing() {
    let runs = Runs::default();
    let router = router(&runs)
        .layer(map_request(
            |mut request: axum::extract::Request| async move {
                request.headers_mut().remove(KEY);
                request
            },
        ))
        .layer(Idempotency::in_memory());
    let server = Server::start(router).await;
    for run in ["1", "2"] {
        assert_eq!(server.post("/count", "k", "").await.text(), run);
    }
    assert_eq!(
        server.post("/required", "k", "").await.code(),
        "idempotency_key_missing"
    );
}

/// Settings from one request must not carry the key of that request.
#[tokio::test]
async fn settings_taken_from_a_request_work_for_other_requests() {
    let runs = Runs::default();
    let kept = Arc::new(Mutex::new(None));
    let keeper = kept.clone();
    let router = router(&runs)
        .layer(map_request(move |request: axum::extract::Request| {
            let idem = request.extensions().get::<Idempotency>().cloned();
            *keeper.lock().expect("no panic") = idem;
            async { request }
        }))
        .layer(Idempotency::in_memory());
    let server = Server::start(router).await;
    assert!(!server.post("/count", "k", "").await.is_replay());
    let idem = kept.lock().expect("no panic").clone().expect("settings");

    let other = Server::start(self::router(&runs).layer(idem.clone())).await;
    assert!(other.post("/count", "k", "").await.is_replay());
    let by_hand = Server::start(self::router(&runs).layer(Extension(idem))).await;
    assert!(by_hand.post("/count", "k", "").await.is_replay());
    for server in [other, by_hand] {
        let unkeyed = || request(Method::POST, "/count", [("authorization", "a")], "");
        assert!(!server.send(unkeyed()).await.is_replay());
        assert!(!server.send(unkeyed()).await.is_replay());
    }
    assert_eq!(runs.started(), 5);
}

#[tokio::test]
async fn an_endpoint_can_use_its_own_settings() {
    #[derive(Clone)]
    struct App {
        runs: Runs,
        idem: Idempotency,
    }

    impl FromRef<App> for Runs {
        fn from_ref(app: &App) -> Self {
            app.runs.clone()
        }
    }

    #[idempotent(scope = global, runtime = app.idem)]
    async fn named(State(app): State<App>, Json(body): Json<u32>) -> String {
        format!("{} of {body}", app.runs.count())
    }
    let dialect = Dialect::default()
        .key_header("x-key")
        .replay_header("x-replayed");
    let app = App {
        runs: Runs::default(),
        idem: Idempotency::builder().dialect(dialect).build(),
    };
    let router = Router::new()
        .route("/named", post(named))
        .with_state(app.clone())
        .layer(Idempotency::in_memory());
    let server = Server::start(router).await;
    let json = ("content-type", "application/json");
    for is_replay in [false, true] {
        let answer = server
            .send(request(Method::POST, "/named", [("x-key", "k"), json], "7"))
            .await;
        assert_eq!(
            (answer.text(), answer.headers.contains_key("x-replayed")),
            ("1 of 7", is_replay)
        );
    }
    let unkeyed = server
        .send(request(Method::POST, "/named", [(KEY, "k"), json], "7"))
        .await;
    assert_eq!(unkeyed.text(), "2 of 7");
}

#[tokio::test]
async fn a_dialect_sets_statuses_links_and_the_replay_header() {
    let dialect = Dialect::default()
        .mismatch(StatusCode::UNPROCESSABLE_ENTITY)
        .in_flight(StatusCode::LOCKED)
        .missing(StatusCode::PRECONDITION_REQUIRED)
        .documentation("https://example.com/idempotency")
        .no_replay_header();
    let (server, runs) = start(Idempotency::builder().dialect(dialect).build()).await;

    let missing = server
        .send(request(Method::POST, "/required", [], ""))
        .await;
    assert_eq!(
        (missing.status.as_u16(), missing.code().as_str()),
        (428, "idempotency_key_missing")
    );
    assert_eq!(
        missing.headers["link"],
        "<https://example.com/idempotency>; rel=\"describedby\""
    );
    let problem: serde_json::Value = serde_json::from_slice(&missing.body).expect("JSON");
    assert_eq!(
        problem["type"],
        "https://example.com/idempotency#idempotency_key_missing"
    );

    server.post("/count", "k", "a").await;
    assert_eq!(server.post("/count", "k", "b").await.status, 422);
    let replay = server.post("/count", "k", "a").await;
    assert_eq!((replay.text(), replay.is_replay()), ("1", false));

    let _first = server.write(post_bytes("/slow", "slow", "")).await;
    runs.until_started(2).await;
    assert_eq!(server.post("/slow", "slow", "").await.status, 423);
}

#[tokio::test]
async fn a_service_can_render_problems_itself() {
    let render = |problem: &Problem| {
        assert!(
            problem.title().len() > 10
                && problem.detail().len() > 10
                && problem.type_uri().contains(':')
        );
        assert_eq!(
            problem.retry_after().is_some(),
            problem.code() == "idempotency_key_in_flight"
        );
        (problem.status(), format!("oops: {}", problem.code()))
    };
    let (server, runs) = start(Idempotency::builder().render_problem(render).build()).await;
    let missing = server
        .send(request(Method::POST, "/required", [], ""))
        .await;
    assert_eq!(
        (missing.status.as_u16(), missing.text()),
        (400, "oops: idempotency_key_missing")
    );
    assert_eq!(
        server.post("/count", "a,b", "").await.text(),
        "oops: idempotency_key_invalid"
    );
    let _first = server.write(post_bytes("/slow", "slow", "")).await;
    runs.until_started(1).await;
    let in_flight = server.post("/slow", "slow", "").await;
    assert_eq!(in_flight.text(), "oops: idempotency_key_in_flight");
    assert_eq!(in_flight.headers["retry-after"], "1");
}

/// A client that asks for another type still gets the code that it needs in order to react.
#[tokio::test]
async fn a_problem_has_the_same_type_for_every_accept_header() {
    let (server, runs) = start(Idempotency::in_memory()).await;
    let send = |headers: Vec<(&'static str, &'static str)>| {
        server.send(request(Method::POST, "/required", headers, ""))
    };
    let plain = send(vec![]).await;
    assert_eq!(plain.code(), "idempotency_key_missing");
    for accept in [
        "*/*",
        "text/html",
        "application/json",
        "image/png;q=0.1",
        "",
    ] {
        let answer = send(vec![("accept", accept)]).await;
        assert_eq!(answer.code(), "idempotency_key_missing", "{accept}");
        assert_eq!(answer.status, plain.status, "{accept}");
        assert_eq!(answer.body, plain.body, "{accept}");
    }
    assert_eq!(runs.started(), 0);
}

#[tokio::test]
async fn a_panic_while_rendering_a_problem_becomes_a_plain_500() {
    let render = |problem: &Problem| -> StatusCode { panic!("cannot render {}", problem.code()) };
    let (server, _) = start(Idempotency::builder().render_problem(render).build()).await;
    server.post("/count", "k", "a").await;
    assert_eq!(server.post("/count", "k", "b").await.status, 500);
    assert!(server.post("/count", "k", "a").await.is_replay());
}

#[tokio::test]
async fn a_problem_contains_neither_key_nor_token() {
    let (server, runs) = start(
        Idempotency::builder()
            .body_timeout(Duration::from_millis(50))
            .build(),
    )
    .await;
    let secret = [(KEY, "SECRET-key"), ("authorization", "SECRET-token")];
    let send = |path, body| server.send(request(Method::POST, path, secret, body));
    send("/count", "a").await;
    let _first = server.write(post_bytes("/slow", "SECRET-key", "")).await;
    runs.until_started(2).await;
    let refusals = [
        send("/count", "b").await,
        send("/slow", "").await,
        server
            .send(request(Method::POST, "/count", [(KEY, "SECRET,key")], ""))
            .await,
        server
            .send(request(Method::POST, "/count", [(KEY, "SECRET-key")], ""))
            .await,
    ];
    for refusal in refusals {
        assert!(refusal.status.is_client_error(), "{refusal:?}");
        assert!(!format!("{refusal:?}").contains("SECRET"), "{refusal:?}");
    }
}

/// An insertion into the extensions would cost as much as the rest of the layer.
#[tokio::test]
async fn the_layer_does_not_change_a_request_without_a_key() {
    let untouched = |request: Request<()>| async move {
        Ok::<_, Infallible>(request.extensions().is_empty().to_string())
    };
    let service = ServiceBuilder::new()
        .layer(Idempotency::in_memory())
        .service_fn(untouched);
    for (header, is_untouched) in [("accept", "true"), (KEY, "false")] {
        let request = Request::post("/").header(header, "k").body(());
        let answer = service
            .clone()
            .oneshot(request.expect("a valid request"))
            .await;
        let body = answer.expect("a response").into_body();
        let body = axum::body::to_bytes(body, 10).await.expect("a short body");
        assert_eq!(body, is_untouched, "{header}");
    }
}

/// The layer cannot see this key. It must still tell the handler which header to read.
#[tokio::test]
async fn a_key_set_below_the_layer_in_a_custom_header_is_found() {
    let runs = Runs::default();
    let dialect = Dialect::default().key_header("x-request-id");
    let router = router(&runs)
        .layer(map_request(
            |mut request: axum::extract::Request| async move {
                let key = axum::http::HeaderValue::from_static("k");
                request.headers_mut().insert("x-request-id", key);
                request
            },
        ))
        .layer(Idempotency::builder().dialect(dialect).build());
    let server = Server::start(router).await;
    for is_replay in [false, true] {
        let unkeyed = request(Method::POST, "/count", [("authorization", "a")], "");
        let answer = server.send(unkeyed).await;
        assert_eq!((answer.text(), answer.is_replay()), ("1", is_replay));
    }
    assert_eq!(runs.started(), 1);
}

/// The page has another origin than the service, so the browser asks first which headers it may send.
#[tokio::test]
async fn a_page_of_another_origin_can_send_a_key_and_read_the_replay_header() {
    let dialect = Dialect::default().echo_key();
    let cors = CorsLayer::new()
        .allow_origin(["https://page.example".parse().expect("an origin")])
        .allow_methods([Method::POST])
        .allow_headers(dialect.request_headers())
        .expose_headers(dialect.response_headers());
    let runs = Runs::default();
    let idem = Idempotency::builder().dialect(dialect).build();
    let server = Server::start(router(&runs).layer(idem).layer(cors)).await;
    let origin = ("origin", "https://page.example");

    let asks = [
        origin,
        ("access-control-request-method", "POST"),
        ("access-control-request-headers", "idempotency-key"),
    ];
    let preflight = server.send(request(Method::OPTIONS, "/slow", asks, ""));
    let allowed = &preflight.await.headers["access-control-allow-headers"];
    assert_eq!(allowed, "idempotency-key");

    let headers = [origin, (KEY, "k"), ("authorization", "a")];
    let answer = server.send(request(Method::POST, "/count", headers, ""));
    let answer = answer.await;
    assert_eq!(answer.headers[KEY], "k");
    assert_eq!(
        answer.headers["access-control-expose-headers"],
        "idempotency-replayed,retry-after,idempotency-degraded,idempotency-receipt,idempotency-key"
    );
    assert_eq!(runs.started(), 1);
}

#[tokio::test]
async fn only_responses_to_writes_with_a_key_echo_the_key() {
    let idem = Idempotency::builder().dialect(Dialect::default().echo_key());
    let (server, _) = start(idem.build()).await;
    let token = ("authorization", "a");
    let unkeyed = server
        .send(request(Method::POST, "/count", [token], ""))
        .await;
    assert!(!unkeyed.headers.contains_key(KEY), "{unkeyed:?}");
    let read = request(Method::GET, "/count", [token, (KEY, "k")], "");
    let read = server.send(read).await;
    assert!(!read.headers.contains_key(KEY), "{read:?}");
    let scopeless = request(Method::POST, "/count", [(KEY, "k")], "");
    let scopeless = server.send(scopeless).await;
    assert_eq!(scopeless.status, StatusCode::UNAUTHORIZED);
    assert_eq!(scopeless.headers[KEY], "k");
}

#[derive(Clone)]
struct Busy;

impl Service<Request<()>> for Busy {
    type Response = String;
    type Error = Infallible;
    type Future = Ready<Result<String, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Pending
    }

    fn call(&mut self, _: Request<()>) -> Self::Future {
        panic!("never called, because this service is never ready")
    }
}

#[test]
fn the_layer_is_ready_only_when_its_inner_service_is_ready() {
    let mut service = Idempotency::builder().build().layer(Busy);
    let cx = &mut Context::from_waker(Waker::noop());
    assert!(service.poll_ready(cx).is_pending());
}

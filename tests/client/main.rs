//! Tests the client of the crate `idem-client` against services that use this library.
#![expect(
    clippy::duplicate_mod,
    reason = "the example has the desk and the proxy too"
)]

#[path = "../../examples/desk/mod.rs"]
mod desk;
#[path = "../../examples/client.rs"]
#[expect(dead_code, reason = "the test does not call the `main` of the example")]
mod example;
#[path = "../../examples/fault_proxy/mod.rs"]
mod fault_proxy;
mod killed;
mod names;
mod refused;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::middleware::map_response;
use axum::response::Response;
use axum::routing::post;
use axum_idem::{Idempotency, idempotent};
use fault_proxy::FaultProxy;
use futures_util::{StreamExt, stream};
use http::{Method, StatusCode};
use http_body_util::Full;
use idem_client::{ClientBuilder, Policy, ResponseExt as _, RetryLayer};
use reqwest_middleware::ClientWithMiddleware;
use test_support::http::{Runs, Server, eventually, request};
use tower::{ServiceBuilder, ServiceExt as _};
use tower_http::timeout::TimeoutLayer;

/// Retries often and with short pauses.
fn eager() -> Policy {
    Policy::default().waits(Duration::from_millis(1), Duration::from_millis(4))
}

fn client() -> ClientWithMiddleware {
    let client = ClientBuilder::default().policy(eager()).build();
    client.expect("a client")
}

#[tokio::test]
async fn five_hundred_operations_book_five_hundred_trades() {
    const OPERATIONS: usize = 500;
    let desk = Server::start(desk::router(Idempotency::in_memory())).await;
    let proxy = FaultProxy::start(vec![desk.0]).await.expect("a free port");
    let (client, url) = (
        client(),
        format!("http://{}/accounts/7/trades", proxy.address()),
    );

    let place = |quantity: usize| {
        let order = serde_json::json!({ "symbol": "AAPL", "side": "buy", "quantity": quantity });
        let request = client.post(&url).bearer_auth("alice.1").json(&order);
        async move { request.send().await.expect("a response").status() }
    };
    let answers: Vec<_> = stream::iter(1..=OPERATIONS)
        .map(place)
        .buffer_unordered(32)
        .collect()
        .await;
    assert!(answers.iter().all(|status| *status == StatusCode::CREATED));

    let booked = desk
        .send(request(Method::GET, "/accounts/7/trades", [], ""))
        .await;
    let booked: Vec<serde_json::Value> = serde_json::from_slice(&booked.body).expect("JSON");
    let quantity = |trade: &serde_json::Value| trade["quantity"].as_u64().expect("a number");
    let mut quantities: Vec<_> = booked.iter().map(quantity).collect();
    quantities.sort_unstable();
    assert_eq!(
        quantities,
        (1..=OPERATIONS as u64).collect::<Vec<_>>(),
        "each trade is booked once"
    );

    // Each lost response costs one more request. The proxy loses every third response.
    let lost = proxy.requests() / 3;
    assert!(
        proxy.requests() >= OPERATIONS + lost,
        "{} requests",
        proxy.requests()
    );
}

#[tokio::test]
async fn the_example_books_every_operation_once() {
    let printed = example::run().await.expect("the example runs");
    assert!(printed.starts_with("500 operations took "), "{printed}");
    assert!(printed.contains("booked 500 trades"), "{printed}");
}

/// The timeout of the server ends the request but not the handler.
#[tokio::test]
async fn a_retry_after_408_gets_the_response_of_the_first_try() {
    #[idempotent(scope = global)]
    async fn slow(State(runs): State<Runs>) -> (StatusCode, String) {
        (StatusCode::CREATED, runs.pass().await.to_string())
    }
    let (runs, timeouts) = (Runs::default(), Arc::new(AtomicUsize::new(0)));
    let count = timeouts.clone();
    let status = StatusCode::REQUEST_TIMEOUT;
    let router = Router::new()
        .route("/", post(slow))
        .layer(Idempotency::in_memory())
        .layer(TimeoutLayer::with_status_code(
            status,
            Duration::from_millis(50),
        ))
        .layer(map_response(move |response: Response| {
            if response.status() == StatusCode::REQUEST_TIMEOUT {
                count.fetch_add(1, Ordering::SeqCst);
            }
            async { response }
        }))
        .with_state(runs.clone());
    let url = format!("http://{}/", Server::start(router).await.0);
    let request = client().post(url).body("once").send();
    let answer = tokio::spawn(request);
    eventually("the first try times out", || {
        timeouts.load(Ordering::SeqCst) > 0
    })
    .await;
    runs.open(1);
    let answer = answer.await.expect("no panic").expect("a response");
    assert_eq!(answer.status(), StatusCode::CREATED);
    assert!(answer.replayed());
    assert_eq!(answer.text().await.expect("a body"), "1");
    assert_eq!(runs.started(), 1);
}

/// The tower layer around a service that calls the router, without a connection.
#[tokio::test]
async fn the_tower_layer_gets_the_response_of_the_first_try() {
    #[idempotent(scope = global, unknown = [500])]
    async fn fails_once(State(runs): State<Runs>, body: String) -> (StatusCode, String) {
        let status = match runs.count() {
            1 => StatusCode::INTERNAL_SERVER_ERROR,
            _ => StatusCode::CREATED,
        };
        (status, body)
    }
    let runs = Runs::default();
    let router = Router::new()
        .route("/", post(fails_once))
        .layer(Idempotency::in_memory())
        .with_state(runs.clone());
    let client = ServiceBuilder::new()
        .layer(RetryLayer::new(eager()))
        .service(router);
    let send = async |key: Option<&str>| {
        let mut request = http::Request::post("/");
        if let Some(key) = key {
            request = request.header(idem_client::headers::IDEMPOTENCY_KEY, key);
        }
        let request = request.body(Full::from("once")).expect("a request");
        client.clone().oneshot(request).await.expect("a response")
    };
    let first = send(None).await;
    assert_eq!((first.status(), first.tries()), (StatusCode::CREATED, 2));
    assert!(!first.replayed());
    let replay = send(first.idempotency_key()).await;
    assert_eq!((replay.tries(), replay.replayed()), (1, true));
    assert_eq!(runs.started(), 2);
}

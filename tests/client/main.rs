//! Tests the retrying client of the examples against servers that fail.

#[path = "../../examples/desk/mod.rs"]
mod desk;
#[path = "../../examples/fault_proxy/mod.rs"]
mod fault_proxy;
#[path = "../../examples/retrying/mod.rs"]
mod retrying;
mod scripted;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, SystemTime};

use axum::Router;
use axum::extract::State;
use axum::middleware::map_response;
use axum::response::Response;
use axum::routing::post;
use axum_idem::{Idempotency, idempotent};
use fault_proxy::FaultProxy;
use futures_util::{StreamExt, stream};
use http::{Method, StatusCode};
use reqwest_middleware::ClientWithMiddleware;
use reqwest_retry::{RetryDecision, RetryPolicy};
use retrying::Patience;
use scripted::Scripted;
use test_support::http::{REPLAYED, Runs, Server, eventually, request};
use tokio::time::Instant;
use tower_http::timeout::TimeoutLayer;

/// Retries often and with short pauses.
const EAGER: Patience = Patience {
    tries: 60,
    first_wait: Duration::from_millis(1),
    longest_wait: Duration::from_millis(4),
    timeout: None,
};

const UNAVAILABLE: &str = "HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\n\r\n";
const CREATED: &str = "HTTP/1.1 201 Created\r\ncontent-length: 2\r\n\r\nok";

fn eager() -> ClientWithMiddleware {
    retrying::client(EAGER).expect("a client")
}

#[tokio::test]
async fn five_hundred_operations_book_five_hundred_trades() {
    const OPERATIONS: usize = 500;
    let desk = Server::start(desk::router(Idempotency::in_memory())).await;
    let proxy = FaultProxy::start(desk.0).await.expect("a free port");
    let (client, url) = (
        eager(),
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
async fn row_15_all_tries_of_one_operation_send_the_same_key() {
    let answers = [
        "",
        UNAVAILABLE,
        "HTTP/1.1 201 Created\r\ncontent-length: 9\r\n\r\nok",
        CREATED,
    ];
    let server = Scripted::start(answers.repeat(2)).await;
    for _ in 0..2 {
        let answer = eager()
            .post(server.url())
            .body("once")
            .send()
            .await
            .expect("a response");
        assert_eq!(answer.status(), StatusCode::CREATED);
    }
    let keys = server.keys();
    let (first, second) = keys.split_at(answers.len());
    for keys in [first, second] {
        let key = keys[0].as_deref().expect("a key");
        assert_eq!(
            uuid::Uuid::parse_str(key)
                .expect("a UUID")
                .get_version_num(),
            4
        );
        assert!(
            keys.iter().all(|other| other.as_deref() == Some(key)),
            "{keys:?}"
        );
    }
    assert_ne!(first[0], second[0]);
}

#[tokio::test]
async fn row_15_a_key_set_by_the_caller_is_kept() {
    let server = Scripted::start([UNAVAILABLE, CREATED]).await;
    let request = eager()
        .post(server.url())
        .header(retrying::IDEMPOTENCY_KEY, "charge-77");
    request.send().await.expect("a response");
    assert_eq!(
        server.keys(),
        [Some("charge-77".into()), Some("charge-77".into())]
    );
}

#[tokio::test]
async fn row_15_reads_are_sent_without_a_key() {
    let server = Scripted::start([UNAVAILABLE, CREATED]).await;
    eager().get(server.url()).send().await.expect("a response");
    assert_eq!(server.keys(), [None, None]);
}

#[test]
fn row_15_backoff_doubles_from_half_a_second_to_thirty_seconds() {
    let waits_at_most = |patience: Patience| -> Vec<Duration> {
        let backoff = patience.backoff();
        let mut waits = Vec::new();
        for past in 0.. {
            let mut longest = Duration::ZERO;
            for _ in 0..2_000 {
                let asked_at = SystemTime::now();
                let RetryDecision::Retry { execute_after } = backoff.should_retry(asked_at, past)
                else {
                    return waits;
                };
                // Measured from now, so that a pause of the machine does not lengthen the wait.
                let wait = execute_after.duration_since(SystemTime::now());
                longest = longest.max(wait.unwrap_or_default());
            }
            waits.push(longest);
        }
        waits
    };
    let expected = |limits: &[u64], waits: Vec<Duration>| {
        assert_eq!(waits.len(), limits.len(), "{waits:?}");
        for (wait, limit) in waits.into_iter().zip(limits) {
            let limit = Duration::from_millis(*limit);
            // The longest of 2,000 random draws is close to the upper limit.
            assert!(wait > limit * 9 / 10 && wait <= limit, "{wait:?}");
        }
    };
    expected(
        &[500, 1_000, 2_000, 4_000],
        waits_at_most(Patience::default()),
    );
    let longer = Patience {
        tries: 9,
        ..Patience::default()
    };
    let doubling = [500, 1_000, 2_000, 4_000, 8_000, 16_000, 30_000, 30_000];
    expected(&doubling, waits_at_most(longer));
}

#[tokio::test]
async fn row_15_the_last_response_is_returned_after_the_last_try() {
    let server = Scripted::start([UNAVAILABLE; 5]).await;
    let client = retrying::client(Patience { tries: 5, ..EAGER }).expect("a client");
    let answer = client.post(server.url()).send().await.expect("a response");
    assert_eq!(answer.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(server.keys().len(), 5);
}

/// The client's clock is paused. The clock advances only while the client waits.
#[tokio::test(start_paused = true)]
async fn row_15_the_client_waits_as_long_as_retry_after_says() {
    let told = "HTTP/1.1 429 Too Many Requests\r\nretry-after: 43\r\ncontent-length: 0\r\n\r\n";
    let server = Scripted::start([told, CREATED]).await;
    let before = Instant::now();
    eager().post(server.url()).send().await.expect("a response");
    let waited = before.elapsed();
    assert!(waited >= Duration::from_secs(43), "{waited:?}");
    assert!(
        waited < Duration::from_secs(44),
        "the client must not wait longer: {waited:?}"
    );
}

#[tokio::test]
async fn row_15_permanent_errors_are_not_retried() {
    let problem = |code: &str| {
        let body = format!("{{\"code\":\"{code}\"}}");
        let head = "HTTP/1.1 409 Conflict\r\ncontent-type: application/problem+json";
        format!("{head}\r\ncontent-length: {}\r\n\r\n{body}", body.len())
    };
    let mismatch = problem("idempotency_key_reused");
    let of_the_service = "HTTP/1.1 409 Conflict\r\ncontent-length: 4\r\n\r\nsold";
    let invalid = "HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n";
    for answer in [mismatch.as_str(), of_the_service, invalid] {
        let server = Scripted::start([answer, CREATED]).await;
        let refused = eager().post(server.url()).send().await.expect("a response");
        assert!(refused.status().is_client_error());
        let whole = refused.text().await.expect("a body");
        assert!(
            answer.ends_with(&whole),
            "the caller must get the whole body: {whole}"
        );
        assert_eq!(server.keys().len(), 1, "{answer}");
    }

    let in_flight = problem("idempotency_key_in_flight");
    let incomplete =
        problem("idempotency_body_incomplete").replacen("409 Conflict", "400 Bad Request", 1);
    let empty = |status: &str| format!("HTTP/1.1 {status}\r\ncontent-length: 0\r\n\r\n");
    let [timeout, too_early, too_many] = [
        "408 Request Timeout",
        "425 Too Early",
        "429 Too Many Requests",
    ]
    .map(empty);
    for answer in [in_flight, incomplete, timeout, too_early, too_many] {
        let server = Scripted::start([answer.as_str(), CREATED]).await;
        let created = eager().post(server.url()).send().await.expect("a response");
        assert_eq!(created.status(), StatusCode::CREATED, "{answer}");
        assert_eq!(server.keys().len(), 2, "{answer}");
    }
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
    let request = eager().post(url).body("once").send();
    let answer = tokio::spawn(request);
    eventually("the first try times out", || {
        timeouts.load(Ordering::SeqCst) > 0
    })
    .await;
    runs.open(1);
    let answer = answer.await.expect("no panic").expect("a response");
    assert_eq!(answer.status(), StatusCode::CREATED);
    assert!(answer.headers().contains_key(REPLAYED));
    assert_eq!(answer.text().await.expect("a body"), "1");
    assert_eq!(runs.started(), 1);
}

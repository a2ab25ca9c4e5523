//! Batches: endpoints that do several operations under one key.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{Extensions, Method, StatusCode};
use axum::routing::post;
use axum::{Json, Router};
use axum_idem::{Attempt, Idempotency, idempotent};
use futures_util::future::join_all;
use futures_util::stream;
use http_body_util::{BodyExt, Full};
use serde_json::{Value, json};
use tower::ServiceExt;

use crate::support::{Answer, KEY, Server, request};

#[idempotent(scope = global)]
async fn item(attempt: Attempt, _: String) -> String {
    attempt.derive_key("charge")
}

/// Extracts its own attempt, and then clones the extensions, including the attempt, for each item.
async fn batch(
    State(items): State<Router>,
    attempt: Attempt,
    extensions: Extensions,
) -> (StatusCode, String) {
    let of_batch = attempt.derive_key("charge");
    // Every item extracts its attempt before the first item claims its key.
    let late_body = || {
        Body::from_stream(stream::once(async {
            tokio::task::yield_now().await;
            Ok::<_, std::io::Error>("trade")
        }))
    };
    let keys = [Some("a"), Some("b"), None];
    let derived = join_all(keys.map(|key| {
        let mut item = Request::post("/").body(late_body()).expect("a request");
        *item.extensions_mut() = extensions.clone();
        if let Some(key) = key {
            let key = key.parse().expect("a value");
            item.headers_mut().insert(KEY, key);
        }
        let items = items.clone();
        async move {
            let response = items.oneshot(item).await.expect("infallible");
            let body = response.into_body().collect().await.expect("a body");
            String::from_utf8(body.to_bytes().to_vec()).expect("text")
        }
    }));
    let mut derived = derived.await;
    assert_eq!(attempt.derive_key("charge"), of_batch);
    derived.push(of_batch);
    (StatusCode::OK, derived.join("\n"))
}

#[tokio::test]
async fn batch_items_with_shared_extensions_derive_different_keys() {
    let idem = Idempotency::in_memory();
    let items = Router::new().route("/", post(item)).layer(idem);
    let router = Router::new().route("/", post(batch)).with_state(items);
    let server = Server::start(router).await;
    let send = async || {
        let request = Request::post("/").body(Full::default());
        server.send(request.expect("a request")).await
    };
    let (first, second) = (send().await, send().await);
    let [first, second] = [&first, &second].map(|it| it.text().lines().collect::<Vec<_>>());
    assert_eq!(first.len(), 4, "{first:?}");
    for (at, key) in first.iter().enumerate() {
        assert!(!first[..at].contains(key), "{first:?}");
    }
    assert_eq!(first[..2], second[..2], "a retry derives the same keys");
    assert_ne!(
        first[2], second[2],
        "a request without a key cannot be retried"
    );
}

/// A service that charges once per key, and fails for the charges that the test selects.
#[derive(Clone, Default)]
struct Bank(Arc<Mutex<Ledger>>);

#[derive(Default)]
struct Ledger {
    receipts: HashMap<String, usize>,
    calls: usize,
    /// The number of the call that fails.
    failing: Option<usize>,
}

impl Bank {
    fn charge(&self, key: String) -> Result<usize, StatusCode> {
        let mut ledger = self.0.lock().expect("no panic");
        ledger.calls += 1;
        if ledger.failing == Some(ledger.calls) {
            return Err(StatusCode::SERVICE_UNAVAILABLE);
        }
        let next = ledger.receipts.len() + 1;
        Ok(*ledger.receipts.entry(key).or_insert(next))
    }

    fn fail_call(&self, number: usize) {
        self.0.lock().expect("no panic").failing = Some(number);
    }

    fn charges(&self) -> usize {
        self.0.lock().expect("no panic").receipts.len()
    }

    fn calls(&self) -> usize {
        self.0.lock().expect("no panic").calls
    }
}

#[derive(serde::Deserialize)]
struct Payment {
    id: String,
}

/// Reports the result of each payment.
#[idempotent(scope = global)]
async fn report_each(
    State(bank): State<Bank>,
    attempt: Attempt,
    Json(payments): Json<Vec<Payment>>,
) -> (StatusCode, Json<Vec<Value>>) {
    let result = |payment: &Payment| match bank.charge(attempt.derive_key(&payment.id)) {
        Ok(receipt) => json!({ "id": payment.id, "receipt": receipt }),
        Err(error) => json!({ "id": payment.id, "error": error.as_u16() }),
    };
    let results = payments.iter().map(result).collect();
    (StatusCode::MULTI_STATUS, Json(results))
}

/// Fails as a whole when a payment fails.
#[idempotent(scope = global)]
async fn all_or_retry(
    State(bank): State<Bank>,
    attempt: Attempt,
    Json(payments): Json<Vec<Payment>>,
) -> Result<Json<Vec<usize>>, StatusCode> {
    let charge = |payment: &Payment| bank.charge(attempt.derive_key(&payment.id));
    let receipts: Result<Vec<_>, _> = payments.iter().map(charge).collect();
    receipts.map(Json)
}

/// A retry may have the items in another order.
#[idempotent(scope = global, fingerprint = none)]
async fn any_order(
    State(bank): State<Bank>,
    attempt: Attempt,
    Json(payments): Json<Vec<Payment>>,
) -> Result<Json<Vec<usize>>, StatusCode> {
    let charge = |payment: &Payment| bank.charge(attempt.derive_key(&payment.id));
    let receipts: Result<Vec<_>, _> = payments.iter().map(charge).collect();
    receipts.map(Json)
}

#[idempotent(scope = global)]
async fn pay_one(State(bank): State<Bank>, attempt: Attempt) -> Result<String, StatusCode> {
    let receipt = bank.charge(attempt.derive_key("charge"))?;
    Ok(receipt.to_string())
}

/// Sends each payment to the endpoint for one payment, under a key of its own.
#[idempotent(scope = global)]
async fn pay_each(
    State(payments): State<Router>,
    attempt: Attempt,
    Json(batch): Json<Vec<Payment>>,
) -> Result<Json<Vec<String>>, StatusCode> {
    let mut receipts = Vec::new();
    let mut failure = None;
    for payment in batch {
        let request = Request::post("/").header(KEY, attempt.derive_key(&payment.id));
        let request = request.body(Body::empty()).expect("a request");
        let response = payments.clone().oneshot(request).await.expect("infallible");
        let status = response.status();
        let body = response.into_body().collect().await.expect("a body");
        if status.is_success() {
            receipts.push(String::from_utf8_lossy(&body.to_bytes()).into_owned());
        } else {
            failure = Some(status);
        }
    }
    failure.map_or(Ok(Json(receipts)), Err)
}

async fn start(bank: &Bank) -> Server {
    let idem = Idempotency::in_memory();
    let one = Router::new().route("/", post(pay_one));
    let one = one.layer(idem.clone()).with_state(bank.clone());
    let router = Router::new()
        .route("/report-each", post(report_each))
        .route("/all-or-retry", post(all_or_retry))
        .route("/any-order", post(any_order))
        .with_state(bank.clone())
        .merge(
            Router::new()
                .route("/pay-each", post(pay_each))
                .with_state(one),
        )
        .layer(idem);
    Server::start(router).await
}

async fn send(server: Server, path: &str, key: &str, ids: &[&str]) -> Answer {
    let body: Vec<_> = ids.iter().map(|id| json!({ "id": id })).collect();
    let headers = [(KEY, key), ("content-type", "application/json")];
    let body = Value::from(body).to_string();
    server
        .send(request(Method::POST, path, headers, &body))
        .await
}

/// The response of the batch is one record, so a failed item stays failed under this key.
#[tokio::test]
async fn a_retry_of_a_batch_gets_the_first_result_of_each_item() {
    let bank = Bank::default();
    let server = start(&bank).await;
    bank.fail_call(2);
    let first = send(server, "/report-each", "k", &["a", "b", "c"]).await;
    assert_eq!(first.status, StatusCode::MULTI_STATUS);
    assert!(
        first.text().contains(r#"{"error":503,"id":"b"}"#),
        "{first:?}"
    );
    let retry = send(server, "/report-each", "k", &["a", "b", "c"]).await;
    assert!(retry.is_replay() && retry.body == first.body, "{retry:?}");
    assert_eq!(bank.calls(), 3);
    // The failed item alone, under a new key.
    let rest = send(server, "/report-each", "k-2", &["b"]).await;
    assert_eq!(rest.text(), r#"[{"id":"b","receipt":3}]"#);
    assert_eq!(bank.charges(), 3);
}

#[tokio::test]
async fn a_changed_batch_under_the_same_key_is_a_mismatch() {
    let bank = Bank::default();
    let server = start(&bank).await;
    send(server, "/report-each", "k", &["a", "b"]).await;
    for changed in [&["a"][..], &["a", "b", "c"], &["b", "a"]] {
        let answer = send(server, "/report-each", "k", changed).await;
        assert_eq!(answer.code(), "idempotency_key_reused", "{changed:?}");
    }
    assert_eq!(bank.calls(), 2);
}

/// A derived key belongs to the key of the batch, so under another key the item is another operation.
#[tokio::test]
async fn an_item_that_is_sent_again_under_a_new_key_happens_again() {
    let bank = Bank::default();
    let server = start(&bank).await;
    send(server, "/report-each", "k", &["a"]).await;
    send(server, "/report-each", "k-2", &["a"]).await;
    assert_eq!(bank.charges(), 2);
}

#[tokio::test]
async fn a_batch_that_runs_again_repeats_no_item() {
    let bank = Bank::default();
    let server = start(&bank).await;
    bank.fail_call(2);
    let first = send(server, "/all-or-retry", "k", &["a", "b", "c"]).await;
    assert_eq!(first.status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(bank.charges(), 1);
    let retry = send(server, "/all-or-retry", "k", &["a", "b", "c"]).await;
    assert!(!retry.is_replay() && retry.text() == "[1,2,3]", "{retry:?}");
    // The second attempt asks for the first item again, and the bank recognizes its key.
    assert_eq!((bank.calls(), bank.charges()), (5, 3));
}

#[tokio::test]
async fn keys_from_the_ids_of_items_survive_another_order() {
    let bank = Bank::default();
    let server = start(&bank).await;
    bank.fail_call(3);
    let first = send(server, "/any-order", "k", &["a", "b", "c"]).await;
    assert_eq!(first.status, StatusCode::SERVICE_UNAVAILABLE);
    let retry = send(server, "/any-order", "k", &["c", "b", "a"]).await;
    assert_eq!(retry.text(), "[3,2,1]");
    assert_eq!(bank.charges(), 3);
}

#[tokio::test]
async fn two_items_with_the_same_id_have_the_same_key() {
    let bank = Bank::default();
    let server = start(&bank).await;
    let answer = send(server, "/all-or-retry", "k", &["a", "a"]).await;
    assert_eq!(answer.text(), "[1,1]");
}

#[tokio::test]
async fn a_retry_of_a_batch_of_requests_runs_only_the_items_that_failed() {
    let bank = Bank::default();
    let server = start(&bank).await;
    bank.fail_call(2);
    let first = send(server, "/pay-each", "k", &["a", "b", "c"]).await;
    assert_eq!(first.status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(bank.charges(), 2);
    let retry = send(server, "/pay-each", "k", &["a", "b", "c"]).await;
    assert_eq!(retry.text(), r#"["1","3","2"]"#);
    assert_eq!((bank.calls(), bank.charges()), (4, 3));
    assert!(
        send(server, "/pay-each", "k", &["a", "b", "c"])
            .await
            .is_replay()
    );
}

/// A key such as `{key}-{id}` would be the same for both items.
#[tokio::test]
async fn items_of_two_batches_with_similar_keys_have_different_keys() {
    let bank = Bank::default();
    let server = start(&bank).await;
    let first = send(server, "/pay-each", "order", &["1-2"]).await;
    let second = send(server, "/pay-each", "order-1", &["2"]).await;
    assert_eq!((first.text(), second.text()), (r#"["1"]"#, r#"["2"]"#));
    assert_eq!(bank.charges(), 2);
}

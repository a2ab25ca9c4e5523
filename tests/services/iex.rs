//! `IEXExchanger`: orders, their confirmation and cancellation, and webhooks.

use http::StatusCode;

use crate::examples::iex;
use crate::rows::{self, Client, Creation};
use crate::support::Server;
use axum_idem::store::MemoryStore;

const ORDER: Creation = Creation {
    path: "/v1/orders",
    body: r#"{"pair": "BTC-USD", "side": "buy", "amount": "0.5"}"#,
    other_body: r#"{"pair": "BTC-USD", "side": "sell", "amount": "0.5"}"#,
    reordered_body: r#"{"side": "buy", "pair": "BTC-USD", "amount": "0.5"}"#,
    list: "/v1/orders",
};

const REPLAYED: &str = "idempotency-replayed";

async fn alice() -> Client {
    let server = Server::start(iex::router(&iex::keys(MemoryStore::default()))).await;
    Client {
        server,
        token: "iex_alice",
    }
}

#[tokio::test]
async fn row_01_the_header_is_idempotency_key() {
    rows::the_header_is_idempotency_key(alice().await, ORDER).await;
}

#[tokio::test]
async fn row_03_reads_do_not_use_keys() {
    rows::reads_ignore_keys(alice().await, ORDER).await;
}

#[tokio::test]
async fn row_04_the_header_is_optional() {
    rows::the_header_is_optional(alice().await, ORDER).await;
}

#[tokio::test]
async fn row_05_keys_belong_to_the_caller() {
    let alice = alice().await;
    let bob = Client {
        token: "iex_bob",
        ..alice
    };
    rows::keys_of_two_callers_are_separate(alice, bob, ORDER).await;
}

#[tokio::test]
async fn row_06_weak_keys_are_refused() {
    let alice = alice().await;
    for key in ["123", "test", "Test", "random", "7", "\"random\""] {
        let answer = alice.post(ORDER.path, key, ORDER.body).await;
        assert_eq!(answer.status, StatusCode::BAD_REQUEST, "{key}");
        assert_eq!(answer.code(), "idempotency_key_invalid");
    }
    assert_eq!(alice.count(ORDER.list).await, 0);
    let answer = alice.post(ORDER.path, "test-123-random", ORDER.body).await;
    assert_eq!(answer.status, StatusCode::CREATED, "{answer:?}");
}

/// Rows 7 and 8.
#[tokio::test]
async fn row_07_and_08_a_retry_is_marked_idempotency_replayed() {
    rows::a_retry_gets_the_first_response(alice().await, ORDER, Some(REPLAYED)).await;
}

#[tokio::test]
async fn row_09_same_key_different_body_is_a_conflict() {
    let reused = rows::a_different_body_is_a_conflict(alice().await, ORDER).await;
    assert_eq!(reused.code(), "idempotency_key_reused");
}

#[tokio::test]
async fn row_10_same_key_different_endpoint_is_a_conflict() {
    let alice = alice().await;
    alice.post(ORDER.path, "order-42", ORDER.body).await;
    for path in [
        "/v1/orders/1/confirm",
        "/v1/orders/1/cancel",
        "/v1/webhooks",
    ] {
        let reused = alice.post(path, "order-42", ORDER.body).await;
        assert_eq!(reused.status, StatusCode::CONFLICT, "{path}");
        assert_eq!(reused.code(), "idempotency_key_reused");
    }
    // The path names the order and is part of the fingerprint.
    alice.post(ORDER.path, "order-43", ORDER.body).await;
    let confirm = |order| alice.post(order, "confirm-42", "");
    assert_eq!(confirm("/v1/orders/1/confirm").await.status, StatusCode::OK);
    assert_eq!(
        confirm("/v1/orders/2/confirm").await.status,
        StatusCode::CONFLICT
    );
    assert_eq!(alice.get(ORDER.list).await[1]["status"], "placed");
}

/// Rows 2 and 14: the listed `POST` endpoints accept keys. `/v1/quotes` is not listed.
#[tokio::test]
async fn row_02_and_14_only_listed_post_endpoints_accept_keys() {
    let alice = alice().await;
    let writes = [
        ("/v1/orders", ORDER.body),
        ("/v1/orders/1/confirm", ""),
        ("/v1/orders", ORDER.other_body),
        ("/v1/orders/2/cancel", ""),
        ("/v1/webhooks", r#"{"url": "https://example.com/hook"}"#),
    ];
    for is_retry in [false, true] {
        for (number, (path, body)) in writes.into_iter().enumerate() {
            let answer = alice.post(path, &format!("row-14-{number}"), body).await;
            assert!(answer.status.is_success(), "{path} {answer:?}");
            assert_eq!(answer.headers.contains_key(REPLAYED), is_retry, "{path}");
        }
    }
    assert_eq!(alice.count("/v1/orders").await, 2);
    assert_eq!(alice.count("/v1/webhooks").await, 1);

    let first = alice.post("/v1/quotes", "row-14-not", ORDER.body).await;
    let second = alice.post("/v1/quotes", "row-14-not", ORDER.body).await;
    assert_ne!(first.body, second.body, "each request gets a new quote");
}

/// Row 15: placing and confirming an order are two operations with two keys. A retry gets the
/// confirmation. A second confirmation with another key is a conflict.
#[tokio::test]
async fn row_15_a_key_names_one_business_operation() {
    let alice = alice().await;
    alice.post("/v1/orders", "order-42-place", ORDER.body).await;
    for _ in 0..2 {
        let answer = alice
            .post("/v1/orders/1/confirm", "order-42-confirm", "")
            .await;
        assert_eq!(answer.status, StatusCode::OK, "{answer:?}");
        assert!(answer.text().contains(r#""status":"confirmed""#));
    }
    let again = alice
        .post("/v1/orders/1/confirm", "order-42-confirm-again", "")
        .await;
    assert_eq!(again.status, StatusCode::CONFLICT);
    assert!(
        again.text().contains("confirmed"),
        "the conflict must be that of the exchange: {again:?}"
    );
}

#[tokio::test]
async fn row_17_at_most_one_mutation_per_key() {
    rows::concurrent_requests_take_effect_once(alice().await, ORDER).await;
}

//! Yoshi: paper trades.

use axum_idem::store::MemoryStore;
use http::{Method, StatusCode};

use crate::examples::yoshi;
use crate::rows::{self, Client, Creation};
use crate::support::Server;

const TRADE: Creation = Creation {
    path: "/v1/paper-trading/accounts/1/trades",
    body: r#"{"symbol": "AAPL", "side": "buy", "quantity": 10}"#,
    other_body: r#"{"symbol": "AAPL", "side": "buy", "quantity": 11}"#,
    reordered_body: r#"{"quantity": 10, "side": "buy", "symbol": "AAPL"}"#,
    list: "/v1/paper-trading/accounts/1/trades",
};

async fn alice() -> Client {
    let server = Server::start(yoshi::router(&yoshi::keys(MemoryStore::default()))).await;
    Client {
        server,
        token: "yoshi_alice_1",
    }
}

#[tokio::test]
async fn row_01_the_header_is_idempotency_key() {
    rows::the_header_is_idempotency_key(alice().await, TRADE).await;
}

#[tokio::test]
async fn row_03_reads_ignore_keys() {
    rows::reads_ignore_keys(alice().await, TRADE).await;
}

#[tokio::test]
async fn row_04_the_header_is_optional() {
    rows::the_header_is_optional(alice().await, TRADE).await;
}

#[tokio::test]
async fn row_05_keys_belong_to_the_account_behind_the_token() {
    let alice = alice().await;
    let refreshed = Client {
        token: "yoshi_alice_2",
        ..alice
    };
    let first = alice.post(TRADE.path, "refreshed", TRADE.body).await;
    let retry = refreshed.post(TRADE.path, "refreshed", TRADE.body).await;
    assert_eq!(first.body, retry.body);
    assert_eq!(alice.count(TRADE.list).await, 1);

    let bob = Client {
        token: "yoshi_bob_1",
        ..alice
    };
    rows::keys_of_two_callers_are_separate(alice, bob, TRADE).await;
}

#[tokio::test]
async fn row_07_a_retry_gets_the_stored_response() {
    rows::a_retry_gets_the_first_response(alice().await, TRADE, Some("idempotency-replayed")).await;
}

#[tokio::test]
async fn row_09_same_key_different_body_is_409() {
    let reused = rows::a_different_body_is_a_conflict(alice().await, TRADE).await;
    assert_eq!(reused.code(), "idempotency_key_reused");
    let link = reused.headers["link"].to_str().expect("a readable header");
    assert_eq!(
        link,
        "<https://docs.yoshi.ai/concepts/idempotency>; rel=\"describedby\""
    );
}

#[tokio::test(start_paused = true)]
async fn row_12_a_key_is_free_after_a_day() {
    rows::a_record_lives_for_a_day(
        yoshi::router(&yoshi::keys(MemoryStore::default())),
        "yoshi_alice_1",
        TRADE,
    )
    .await;
}

/// Rows 2 and 14: the listed `POST` endpoints accept keys. `reminders` is not listed.
#[tokio::test]
async fn row_02_and_14_only_listed_post_endpoints_accept_keys() {
    let alice = alice().await;
    let accounts = (
        "/v1/paper-trading/accounts",
        r#"{"name": "A", "starting_cash_balance": "1"}"#,
    );
    let actions = ("/v1/actions", r#"{"kind": "rebalance"}"#);
    for (number, (path, body)) in [(TRADE.path, TRADE.body), accounts, actions]
        .into_iter()
        .enumerate()
    {
        let key = format!("row-14-{number}");
        let first = alice.post(path, &key, body).await;
        assert!(first.status.is_success(), "{first:?}");
        assert_eq!(alice.post(path, &key, body).await.body, first.body);
        assert_eq!(alice.count(path).await, 1, "{path}");
    }
    for reminders in 1..=2 {
        let path = "/v1/actions/1/reminders";
        let answer = alice.send(Method::POST, path, Some("row-14-not"), "").await;
        assert_eq!(answer.status, StatusCode::OK, "{answer:?}");
        assert_eq!(alice.get("/v1/actions").await[0]["reminders"], reminders);
    }
}

/// Row 15, on the server: random keys, and keys derived from the client's own ids.
#[tokio::test]
async fn row_15_random_and_derived_keys_are_accepted() {
    let alice = alice().await;
    let random = uuid::Uuid::new_v4().to_string();
    for key in [&random, "trade-1-AAPL-buy-2026-04-10"] {
        for _ in 0..2 {
            let answer = alice.post(TRADE.path, key, TRADE.body).await;
            assert_eq!(answer.status, StatusCode::CREATED, "{answer:?}");
        }
    }
    assert_eq!(alice.count(TRADE.list).await, 2);
}

#[tokio::test]
async fn row_17_at_most_one_mutation_per_key() {
    rows::concurrent_requests_take_effect_once(alice().await, TRADE).await;
}

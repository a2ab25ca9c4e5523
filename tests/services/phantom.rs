//! Phantom: economy adjustments and warnings.

use axum_idem::store::MemoryStore;
use http::{Method, StatusCode};
use serde_json::Value;

use crate::examples::phantom;
use crate::rows::{self, Client, Creation};
use crate::support::{Answer, Server};

const WARNING: Creation = Creation {
    path: "/api/v1/cases",
    body: r#"{"user_id": "123", "type": "warn", "reason": "spam"}"#,
    other_body: r#"{"user_id": "124", "type": "warn", "reason": "spam"}"#,
    reordered_body: r#"{"reason": "spam", "type": "warn", "user_id": "123"}"#,
    list: "/api/v1/cases",
};

const ADJUST: &str = "/api/v1/economy/adjust";
const WALLET: &str = "/api/v1/economy/wallet/123";
const PRIZE: &str = r#"{"user_id": "123", "delta": 500, "reason": "Tournament prize"}"#;
const CLOSED: &str = "/operator/economy/closed";
const REPLAY: &str = "idempotent-replay";

async fn bot() -> Client {
    let server = Server::start(phantom::router(&phantom::keys(MemoryStore::default()))).await;
    Client {
        server,
        token: "phk_live_1",
    }
}

impl Client {
    async fn balance(self) -> Value {
        self.get(WALLET).await["balance"].clone()
    }
}

/// The code of an error in Phantom's own format.
fn code(answer: &Answer) -> String {
    assert_eq!(
        answer.headers["content-type"], "application/json",
        "{answer:?}"
    );
    let body: Value = serde_json::from_slice(&answer.body).expect("JSON");
    assert!(body["error"]["message"].is_string(), "{body}");
    body["error"]["code"]
        .as_str()
        .expect("an error code")
        .to_owned()
}

#[tokio::test]
async fn row_01_the_header_is_idempotency_key() {
    rows::the_header_is_idempotency_key(bot().await, WARNING).await;
}

/// Rows 2 and 14: all writes accept a key. The reason, the balance and the deletion would reveal a
/// second run.
#[tokio::test]
async fn row_02_and_14_every_write_accepts_a_key() {
    let bot = bot().await;
    let writes = [
        (Method::POST, "/api/v1/cases", WARNING.body),
        (Method::POST, ADJUST, PRIZE),
        (Method::PUT, WALLET, r#"{"balance": 7}"#),
        (
            Method::PATCH,
            "/api/v1/cases/1",
            r#"{"reason": "much spam"}"#,
        ),
        (Method::DELETE, "/api/v1/cases/1", ""),
    ];
    for is_retry in [false, true] {
        for (number, (method, path, body)) in writes.iter().enumerate() {
            let key = format!("row-2-{number}");
            let answer = bot.send(method.clone(), path, Some(&key), body).await;
            assert!(answer.status.is_success(), "{method} {path} {answer:?}");
            assert_eq!(
                answer.headers.contains_key(REPLAY),
                is_retry,
                "{method} {path}"
            );
        }
        assert_eq!(bot.balance().await, 7);
        assert_eq!(bot.count(WARNING.list).await, 0);
    }
}

#[tokio::test]
async fn row_03_get_and_head_ignore_keys() {
    rows::reads_ignore_keys(bot().await, WARNING).await;
}

#[tokio::test]
async fn row_04_the_header_is_optional() {
    rows::the_header_is_optional(bot().await, WARNING).await;
}

#[tokio::test]
async fn row_05_keys_belong_to_the_token() {
    let one = bot().await;
    let other = Client {
        token: "phk_live_2",
        ..one
    };
    rows::keys_of_two_callers_are_separate(one, other, WARNING).await;
}

#[tokio::test]
async fn row_06_keys_of_up_to_128_characters_are_accepted() {
    let bot = bot().await;
    let answer = bot.post(WARNING.path, &"k".repeat(128), WARNING.body).await;
    assert_eq!(answer.status, StatusCode::CREATED, "{answer:?}");
    let answer = bot.post(WARNING.path, &"k".repeat(129), WARNING.body).await;
    assert_eq!(answer.status, StatusCode::BAD_REQUEST, "{answer:?}");
    assert_eq!(code(&answer), "idempotency_key_invalid");
    assert_eq!(bot.count(WARNING.list).await, 1);
}

/// Rows 7 and 8.
#[tokio::test]
async fn row_07_and_08_a_retry_is_marked_idempotent_replay() {
    rows::a_retry_gets_the_first_response(bot().await, WARNING, Some(REPLAY)).await;
    let bot = bot().await;
    for _ in 0..3 {
        let answer = bot.post(ADJUST, "row-7", PRIZE).await;
        assert_eq!(answer.text(), r#"{"user_id":"123","balance":500}"#);
    }
    assert_eq!(bot.balance().await, 500);
}

#[tokio::test]
async fn row_09_same_key_different_body_is_409_idempotency_key_reused() {
    let reused = rows::a_different_body_is_a_conflict(bot().await, WARNING).await;
    assert_eq!(code(&reused), "idempotency_key_reused");
}

#[tokio::test]
async fn row_10_same_key_different_endpoint_is_409() {
    let bot = bot().await;
    bot.post(WARNING.path, "row-10", WARNING.body).await;
    let elsewhere = [
        (Method::POST, ADJUST, WARNING.body),
        (Method::PATCH, "/api/v1/cases/1", WARNING.body),
        (Method::DELETE, "/api/v1/cases/1", ""),
    ];
    for (method, path, body) in elsewhere {
        let reused = bot.send(method, path, Some("row-10"), body).await;
        assert_eq!(reused.status, StatusCode::CONFLICT, "{reused:?}");
        assert_eq!(code(&reused), "idempotency_key_reused");
    }
    assert_eq!(bot.count(WARNING.list).await, 1);
}

#[tokio::test]
async fn row_11_2xx_and_4xx_are_recorded() {
    let bot = bot().await;
    let too_much = r#"{"user_id": "123", "delta": -500, "reason": "Fine"}"#;
    let first = bot.post(ADJUST, "row-11", too_much).await;
    assert_eq!(first.status, StatusCode::UNPROCESSABLE_ENTITY);
    bot.post(ADJUST, "prize", PRIZE).await;
    // The operation would succeed now, but the key already has a recorded response.
    let retry = bot.post(ADJUST, "row-11", too_much).await;
    assert_eq!((first.status, first.body), (retry.status, retry.body));
    assert_eq!(retry.headers[REPLAY], "true");
    assert_eq!(bot.balance().await, 500);
}

#[tokio::test]
async fn row_11_after_a_5xx_the_key_can_be_retried() {
    let bot = bot().await;
    bot.send(Method::PUT, CLOSED, None, "").await;
    for _ in 0..2 {
        let answer = bot.post(ADJUST, "row-11", PRIZE).await;
        assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE);
        assert!(!answer.headers.contains_key(REPLAY));
    }
    bot.send(Method::DELETE, CLOSED, None, "").await;
    for is_retry in [false, true] {
        let answer = bot.post(ADJUST, "row-11", PRIZE).await;
        assert_eq!(answer.status, StatusCode::OK);
        assert_eq!(answer.headers.contains_key(REPLAY), is_retry);
    }
    assert_eq!(bot.balance().await, 500);
}

#[tokio::test(start_paused = true)]
async fn row_12_a_key_is_free_after_a_day() {
    let router = phantom::router(&phantom::keys(MemoryStore::default()));
    rows::a_record_lives_for_a_day(router, "phk_live_1", WARNING).await;
}

#[tokio::test]
async fn row_15_an_upstream_id_works_as_a_key() {
    let bot = bot().await;
    for delivery in 0..3 {
        let answer = bot.post(ADJUST, "stripe-charge-ch_3PqR", PRIZE).await;
        assert_eq!(answer.headers.contains_key(REPLAY), delivery > 0);
    }
    assert_eq!(bot.balance().await, 500);
}

#[tokio::test]
async fn row_16_the_fingerprint_covers_the_bytes_of_the_body() {
    rows::reformatted_json_is_a_different_body(bot().await, WARNING).await;
}

#[tokio::test]
async fn row_17_at_most_one_mutation_per_key() {
    rows::concurrent_requests_take_effect_once(bot().await, WARNING).await;
}

//! Aleta: accounts per workspace, in sandbox and production.

use axum_idem::store::MemoryStore;
use http::{Method, StatusCode};

use crate::examples::aleta::{self, Keys};
use crate::rows::{self, Client, Creation};
use crate::support::{Answer, Server};

const ACCOUNT: Creation = Creation {
    path: "/v1/accounts",
    body: r#"{"entity_id": "ent_1", "institution": "Nordea"}"#,
    other_body: r#"{"entity_id": "ent_2", "institution": "Nordea"}"#,
    reordered_body: r#"{ "institution": "Nordea", "entity_id": "ent_1" }"#,
    list: "/v1/accounts",
};

const ACME: &str = "aleta_sandbox_acme_1";

async fn acme() -> Client {
    acme_at(&MemoryStore::builder().build()).await
}

/// Starts a separate server on this store.
async fn acme_at(store: &MemoryStore) -> Client {
    let server = Server::start(aleta::router(Keys::kept_in(store))).await;
    Client {
        server,
        token: ACME,
    }
}

#[tokio::test]
async fn row_01_the_header_is_idempotency_key() {
    rows::the_header_is_idempotency_key(acme().await, ACCOUNT).await;
}

/// Rows 2 and 14: all writes accept a key. Running one of these writes again would change its response.
#[tokio::test]
async fn row_02_and_14_every_write_accepts_a_key() {
    let acme = acme().await;
    let put = r#"{"entity_id": "ent_1", "institution": "SEB"}"#;
    let patch = r#"{"institution": "Danske Bank"}"#;
    let writes = [
        (
            Method::POST,
            "/v1/accounts",
            ACCOUNT.body,
            StatusCode::CREATED,
        ),
        (Method::PUT, "/v1/accounts/1", put, StatusCode::OK),
        (Method::PATCH, "/v1/accounts/1", patch, StatusCode::OK),
        (Method::DELETE, "/v1/accounts/1", "", StatusCode::NO_CONTENT),
    ];
    let send = async |(method, path, body, status): &(Method, &str, &str, StatusCode)| {
        let key = format!("row-2-{method}");
        let answer = acme.send(method.clone(), path, Some(&key), body).await;
        assert_eq!(answer.status, *status, "{method} {answer:?}");
        answer.body
    };
    let mut first = Vec::new();
    for write in &writes {
        first.push(send(write).await);
    }
    assert_eq!(acme.count(ACCOUNT.list).await, 0, "the account is closed");
    // A second run of every write except the first would return 404.
    for (write, first) in writes.iter().zip(first) {
        assert_eq!(send(write).await, first);
    }
    assert_eq!(
        acme.count(ACCOUNT.list).await,
        0,
        "the account stays closed"
    );
}

#[tokio::test]
async fn row_03_reads_ignore_keys() {
    rows::reads_ignore_keys(acme().await, ACCOUNT).await;
}

#[tokio::test]
async fn row_04_the_header_is_optional_on_every_write() {
    rows::the_header_is_optional(acme().await, ACCOUNT).await;
    let acme = acme().await;
    acme.post(ACCOUNT.path, "row-4", ACCOUNT.body).await;
    let change = r#"{"institution": "SEB"}"#;
    for (method, body) in [
        (Method::PUT, ACCOUNT.body),
        (Method::PATCH, change),
        (Method::DELETE, ""),
    ] {
        let answer = acme.send(method, "/v1/accounts/1", None, body).await;
        assert!(answer.status.is_success(), "{answer:?}");
    }
}

#[tokio::test]
async fn row_05_keys_belong_to_the_workspace() {
    let acme = acme().await;
    let refreshed = Client {
        token: "aleta_sandbox_acme_2",
        ..acme
    };
    let first = acme.post(ACCOUNT.path, "refreshed", ACCOUNT.body).await;
    let retry = refreshed
        .post(ACCOUNT.path, "refreshed", ACCOUNT.body)
        .await;
    assert_eq!(first.body, retry.body);
    assert_eq!(acme.count(ACCOUNT.list).await, 1);

    let other = Client {
        token: "aleta_sandbox_umbrella_1",
        ..acme
    };
    rows::keys_of_two_callers_are_separate(acme, other, ACCOUNT).await;
}

#[tokio::test]
async fn row_05_sandbox_and_production_are_separate() {
    let sandbox = acme().await;
    let production = Client {
        token: "aleta_live_acme_1",
        ..sandbox
    };
    rows::keys_of_two_callers_are_separate(sandbox, production, ACCOUNT).await;
    assert_eq!(sandbox.count(ACCOUNT.list).await, 2);
    assert_eq!(production.count(ACCOUNT.list).await, 2);
}

#[tokio::test]
async fn row_06_any_string_of_up_to_255_bytes_is_accepted() {
    let acme = acme().await;
    let longest = "k".repeat(255);
    let opaque = [
        "a",
        "a, b",
        "a b;c=d",
        "\"",
        "\"a\"",
        "{json: 1}",
        "ключ",
        longest.as_str(),
    ];
    for key in opaque {
        for _ in 0..2 {
            let answer = acme.post(ACCOUNT.path, key, ACCOUNT.body).await;
            assert_eq!(answer.status, StatusCode::CREATED, "{key} {answer:?}");
        }
    }
    assert_eq!(acme.count(ACCOUNT.list).await, opaque.len());

    // The limit is 255 bytes, not 255 characters.
    for key in ["k".repeat(256), "к".repeat(128)] {
        let answer = acme.post(ACCOUNT.path, &key, ACCOUNT.body).await;
        assert_eq!(answer.status, StatusCode::BAD_REQUEST, "{answer:?}");
        assert_eq!(answer.code(), "idempotency_key_invalid");
    }
    assert_eq!(acme.count(ACCOUNT.list).await, opaque.len());
}

/// Rows 7, 8 and 11: a replay has the same status, headers and body, and no header marks it.
#[tokio::test]
async fn row_07_08_and_11_a_replay_is_identical_and_has_no_replay_header() {
    rows::a_retry_gets_the_first_response(acme().await, ACCOUNT, None).await;
    let acme = acme().await;
    acme.post(ACCOUNT.path, "row-11", ACCOUNT.body).await;
    let retry = acme.post(ACCOUNT.path, "row-11", ACCOUNT.body).await;
    assert_eq!(retry.headers["location"], "/v1/accounts/1");
}

/// Row 11: a client error is also a full response.
#[tokio::test]
async fn row_11_a_client_error_of_the_service_is_recorded() {
    let acme = acme().await;
    let change = async || {
        let body = r#"{"institution": "SEB"}"#;
        acme.send(Method::PATCH, "/v1/accounts/1", Some("row-11"), body)
            .await
            .status
    };
    assert_eq!(change().await, StatusCode::NOT_FOUND);
    acme.post(ACCOUNT.path, "opened", ACCOUNT.body).await;
    assert_eq!(change().await, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn row_09_same_key_different_body_is_409() {
    let reused = rows::a_different_body_is_a_conflict(acme().await, ACCOUNT).await;
    assert_eq!(reused.code(), "idempotency_key_reused");
}

#[tokio::test(start_paused = true)]
async fn row_12_a_key_is_free_after_a_day() {
    let keys = Keys::kept_in(&MemoryStore::builder().build());
    rows::a_record_lives_for_a_day(aleta::router(keys), ACME, ACCOUNT).await;
}

/// Row 13: the standby server shares only the store.
#[tokio::test]
async fn row_13_a_record_survives_a_failover() {
    let store = MemoryStore::builder().build();
    let failing = acme_at(&store).await;
    let first = failing.post(ACCOUNT.path, "row-13", ACCOUNT.body).await;
    let standby = acme_at(&store).await;
    let retry = standby.post(ACCOUNT.path, "row-13", ACCOUNT.body).await;
    let told = |answer: Answer| {
        (
            answer.status,
            answer.headers["location"].clone(),
            answer.body,
        )
    };
    assert_eq!(told(first), told(retry));
    assert_eq!(
        standby.count(ACCOUNT.list).await,
        0,
        "the standby ran no handler"
    );
}

#[tokio::test]
async fn row_16_reserialized_json_is_a_different_body() {
    rows::reformatted_json_is_a_different_body(acme().await, ACCOUNT).await;
}

#[tokio::test]
async fn row_17_only_the_first_request_takes_effect() {
    rows::concurrent_requests_take_effect_once(acme().await, ACCOUNT).await;
}

//! Aleta: accounts by workspace, in sandbox and production.

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

/// A server of its own, over this store.
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

/// Rows 2 and 14: all writes. Each is one that would be answered otherwise if it ran again.
#[tokio::test]
async fn row_02_and_14_every_write_takes_a_key() {
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
    assert_eq!(acme.count(ACCOUNT.list).await, 0, "closed");
    // Run again, each but the first would be told that there is no such account.
    for (write, first) in writes.iter().zip(first) {
        assert_eq!(send(write).await, first);
    }
    assert_eq!(acme.count(ACCOUNT.list).await, 0, "and not opened again");
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
    rows::two_callers_do_not_meet(acme, other, ACCOUNT).await;
}

#[tokio::test]
async fn row_05_sandbox_and_production_never_meet() {
    let sandbox = acme().await;
    let production = Client {
        token: "aleta_live_acme_1",
        ..sandbox
    };
    rows::two_callers_do_not_meet(sandbox, production, ACCOUNT).await;
    assert_eq!(sandbox.count(ACCOUNT.list).await, 2);
    assert_eq!(production.count(ACCOUNT.list).await, 2);
}

#[tokio::test]
async fn row_06_any_opaque_string_of_up_to_255_bytes() {
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

    // 255 is a number of bytes, not of characters.
    for key in ["k".repeat(256), "к".repeat(128)] {
        let answer = acme.post(ACCOUNT.path, &key, ACCOUNT.body).await;
        assert_eq!(answer.status, StatusCode::BAD_REQUEST, "{answer:?}");
        assert_eq!(answer.code(), "idempotency_key_invalid");
    }
    assert_eq!(acme.count(ACCOUNT.list).await, opaque.len());
}

/// Rows 7, 8 and 11: status, headers and body as they were, and nothing that tells them apart.
#[tokio::test]
async fn row_07_08_and_11_the_full_response_verbatim_and_unmarked() {
    rows::a_retry_gets_the_first_answer(acme().await, ACCOUNT, None).await;
    let acme = acme().await;
    acme.post(ACCOUNT.path, "row-11", ACCOUNT.body).await;
    let retry = acme.post(ACCOUNT.path, "row-11", ACCOUNT.body).await;
    assert_eq!(retry.headers["location"], "/v1/accounts/1");
}

/// Row 11: what the caller did wrong is part of the full response too.
#[tokio::test]
async fn row_11_a_refusal_of_the_service_is_kept() {
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
    let reused = rows::another_body_is_a_conflict(acme().await, ACCOUNT).await;
    assert_eq!(reused.code(), "idempotency_key_reused");
}

#[tokio::test(start_paused = true)]
async fn row_12_purged_and_free_after_a_day() {
    let keys = Keys::kept_in(&MemoryStore::builder().build());
    rows::a_key_lives_for_a_day(aleta::router(keys), ACME, ACCOUNT).await;
}

/// Row 13: the server that takes over shares the store, and nothing else.
#[tokio::test]
async fn row_13_survives_a_failover() {
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
    assert_eq!(standby.count(ACCOUNT.list).await, 0, "it ran nothing");
}

#[tokio::test]
async fn row_16_reserialised_json_is_another_body() {
    rows::json_written_otherwise_is_another_body(acme().await, ACCOUNT).await;
}

#[tokio::test]
async fn row_17_only_the_first_takes_effect() {
    rows::many_at_once_take_effect_once(acme().await, ACCOUNT).await;
}

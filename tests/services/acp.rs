//! The clauses of section 6 of the Agentic Commerce Protocol's RFC "Agentic Checkout".

use axum_idem::store::MemoryStore;
use std::time::Duration;

use axum::Router;
use axum::routing::post;
use axum_idem::{Dialect, Idempotency, idempotent};
use http::{Method, StatusCode};
use serde_json::{Value, json};

use crate::examples::acp;
use crate::support::{Answer, KEY, Server, request};

const SESSIONS: &str = "/checkout_sessions";
const CART: &str = r#"{"items": [{"id": "rose", "quantity": 2}], "note": "red"}"#;
const PAYMENT: &str = r#"{"payment_data": {"token": "tok_visa"}}"#;

#[derive(Clone, Copy)]
struct Agent {
    server: Server,
    token: &'static str,
}

impl Agent {
    async fn alice() -> Self {
        let server = Server::start(acp::router(&acp::keys(MemoryStore::default()))).await;
        let token = "Bearer acp_alice";
        Self { server, token }
    }

    async fn send(self, path: &str, key: Option<&str>, content_type: &str, body: &str) -> Answer {
        let headers = [
            ("authorization", self.token),
            ("content-type", content_type),
        ];
        let headers = headers.into_iter().chain(key.map(|key| (KEY, key)));
        let request = request(Method::POST, path, headers, body);
        self.server.send(request).await
    }

    async fn post(self, path: &str, key: &str, body: &str) -> Answer {
        self.send(path, Some(key), "application/json", body).await
    }

    async fn opens_a_session(self) -> String {
        let opened = self.post(SESSIONS, "open", CART).await;
        assert_eq!(opened.status, StatusCode::CREATED, "{opened:?}");
        format!("{SESSIONS}/{}", json_of(&opened)["id"])
    }
}

fn json_of(answer: &Answer) -> Value {
    serde_json::from_slice(&answer.body).expect("JSON")
}

fn is_replay(answer: &Answer) -> bool {
    let mark = answer.headers.get("idempotent-replayed");
    mark.is_some_and(|mark| mark == "true")
}

/// Checks the flat error of the protocol, and returns its code.
fn code(answer: &Answer) -> String {
    let error = json_of(answer);
    assert_eq!(answer.headers["content-type"], "application/json");
    assert_eq!(error["type"], "invalid_request", "{error}");
    assert!(error["message"].is_string(), "{error}");
    assert_eq!(error.as_object().map(serde_json::Map::len), Some(3));
    error["code"].as_str().expect("a code").to_owned()
}

#[tokio::test]
async fn clause_3_1_each_response_to_a_post_contains_the_key() {
    let alice = Agent::alice().await;
    let key = "\"6f1c, with a comma\"";
    for (body, status) in [
        (CART, StatusCode::CREATED),
        (CART, StatusCode::CREATED),
        ("{\"items\": []}", StatusCode::UNPROCESSABLE_ENTITY),
    ] {
        let answer = alice.post(SESSIONS, key, body).await;
        assert_eq!(answer.status, status, "{answer:?}");
        assert_eq!(answer.headers[KEY], key);
    }
    // A request that is refused before the handler.
    let nobody = Agent { token: "", ..alice };
    let answer = nobody.post(SESSIONS, key, CART).await;
    assert_eq!(answer.status, StatusCode::UNAUTHORIZED);
    assert_eq!(answer.headers[KEY], key);
}

#[tokio::test]
async fn clause_6_1_a_key_is_required() {
    let alice = Agent::alice().await;
    let session = alice.opens_a_session().await;
    let all = ["", "/complete", "/cancel"].map(|end| format!("{session}{end}"));
    for path in all.iter().map(String::as_str).chain([SESSIONS]) {
        let answer = alice.send(path, None, "application/json", CART).await;
        assert_eq!(answer.status, StatusCode::BAD_REQUEST, "{path}: {answer:?}");
        assert_eq!(code(&answer), "idempotency_key_required");
    }
}

#[tokio::test]
async fn clause_6_1_a_key_has_up_to_255_characters() {
    let alice = Agent::alice().await;
    let answer = alice.post(SESSIONS, &"k".repeat(255), CART).await;
    assert_eq!(answer.status, StatusCode::CREATED);
    let answer = alice.post(SESSIONS, &"k".repeat(256), CART).await;
    assert_eq!(answer.status, StatusCode::BAD_REQUEST);
    assert_eq!(code(&answer), "idempotency_key_invalid");
}

#[tokio::test]
async fn clause_6_1_a_key_belongs_to_a_caller_and_a_path() {
    let alice = Agent::alice().await;
    let bob = Agent {
        token: "Bearer acp_bob",
        ..alice
    };
    let ids = [
        alice.post(SESSIONS, "k", CART).await,
        bob.post(SESSIONS, "k", CART).await,
    ];
    assert_ne!(json_of(&ids[0])["id"], json_of(&ids[1])["id"]);
    let session = format!("{SESSIONS}/{}", json_of(&ids[0])["id"]);
    let updated = alice.post(&session, "k", CART).await;
    assert_eq!(updated.status, StatusCode::OK, "{updated:?}");
    let completed = alice
        .post(&format!("{session}/complete"), "k", PAYMENT)
        .await;
    assert_eq!(completed.status, StatusCode::OK, "{completed:?}");
}

#[tokio::test]
async fn clause_6_2_bodies_are_compared_as_json_values() {
    let alice = Agent::alice().await;
    let first = alice.post(SESSIONS, "k", CART).await;
    for same in [
        r#"{"note": "red", "items": [{"quantity": 2, "id": "rose"}]}"#,
        r#"{"items":[{"id":"rose","quantity":2.0}],"note":"red"}"#,
        r#"{"items":[{"id":"ros\u0065","quantity":0.2e1}],"note":"red"}"#,
    ] {
        let answer = alice.post(SESSIONS, "k", same).await;
        assert!(is_replay(&answer), "{same}: {answer:?}");
        assert_eq!(answer.body, first.body);
    }
    for different in [
        r#"{"items": [{"id": "rose", "quantity": 2}], "note": null}"#,
        r#"{"items": [{"id": "rose", "quantity": 2}]}"#,
        r#"{"items": [{"id": "rose", "quantity": 2.01}], "note": "red"}"#,
    ] {
        let answer = alice.post(SESSIONS, "k", different).await;
        assert_eq!(code(&answer), "idempotency_conflict", "{different}");
    }
    let first = r#"{"items": [{"id": "a", "quantity": 1}, {"id": "b", "quantity": 1}]}"#;
    let turned = r#"{"items": [{"id": "b", "quantity": 1}, {"id": "a", "quantity": 1}]}"#;
    let answer = alice.post(SESSIONS, "order", first).await;
    assert_eq!(answer.status, StatusCode::CREATED);
    let answer = alice.post(SESSIONS, "order", turned).await;
    assert_eq!(code(&answer), "idempotency_conflict");
}

#[tokio::test]
async fn clause_6_2_headers_do_not_count() {
    let alice = Agent::alice().await;
    alice.post(SESSIONS, "k", CART).await;
    let other = "application/json; charset=utf-8";
    let answer = alice.send(SESSIONS, Some("k"), other, CART).await;
    assert!(is_replay(&answer), "{answer:?}");
}

#[tokio::test]
async fn clause_6_3_a_retry_gets_the_first_response_and_has_no_effect() {
    let alice = Agent::alice().await;
    let session = alice.opens_a_session().await;
    for (path, body) in [("", CART), ("/complete", PAYMENT)] {
        let path = format!("{session}{path}");
        let first = alice.post(&path, "k", body).await;
        let again = alice.post(&path, "k", body).await;
        assert_eq!(first.status, StatusCode::OK, "{first:?}");
        assert!(!is_replay(&first) && is_replay(&again), "{again:?}");
        assert_eq!((again.status, again.body), (first.status, first.body));
    }
    // A second completion would be refused.
    let path = format!("{session}/complete");
    let second = alice.post(&path, "k2", PAYMENT).await;
    assert_eq!(second.status, StatusCode::CONFLICT);
}

#[tokio::test]
async fn clause_6_4_a_different_body_is_a_conflict() {
    let alice = Agent::alice().await;
    alice.post(SESSIONS, "k", CART).await;
    let answer = alice.post(SESSIONS, "k", r#"{"items": []}"#).await;
    assert_eq!(answer.status, StatusCode::UNPROCESSABLE_ENTITY);
    assert_eq!(code(&answer), "idempotency_conflict");
}

/// The example has no slow endpoint, so this test has one.
#[tokio::test]
async fn clause_6_4_a_request_in_flight_is_refused_with_retry_after() {
    #[idempotent(scope = token)]
    async fn slow() {
        std::future::pending().await
    }

    let idem = Idempotency::builder().dialect(Dialect::acp()).build();
    let router = Router::new().route("/slow", post(slow)).layer(idem);
    let server = Server::start(router).await;
    let alice = Agent {
        server,
        token: "Bearer acp_alice",
    };
    let first = tokio::spawn(async move { alice.post("/slow", "k", "").await });
    let answer = loop {
        let asked = alice.post("/slow", "k", "");
        // The request that arrives first never gets a response.
        if let Ok(answer) = tokio::time::timeout(Duration::from_secs(1), asked).await {
            break answer;
        }
    };
    assert_eq!(answer.status, StatusCode::CONFLICT, "{answer:?}");
    assert_eq!(code(&answer), "idempotency_in_flight");
    assert_eq!(answer.headers["retry-after"], "1");
    first.abort();
}

#[tokio::test]
async fn clause_6_5_a_5xx_response_is_not_recorded() {
    let alice = Agent::alice().await;
    let complete = format!("{}/complete", alice.opens_a_session().await);
    let unavailable = r#"{"payment_data": {"token": "tok_unavailable"}}"#;
    for _ in 0..2 {
        let answer = alice.post(&complete, "k", unavailable).await;
        assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE);
        assert!(!is_replay(&answer), "{answer:?}");
    }
    let declined = r#"{"payment_data": {"token": "tok_declined"}}"#;
    let first = alice.post(&complete, "k2", declined).await;
    let again = alice.post(&complete, "k2", declined).await;
    assert_eq!(first.status, StatusCode::PAYMENT_REQUIRED);
    assert!(is_replay(&again), "{again:?}");
}

/// 24 hours, and not a second less. Then the key is a new one.
#[tokio::test(start_paused = true)]
async fn clause_6_6_a_key_is_kept_for_24_hours() {
    const DAY: Duration = Duration::from_secs(24 * 60 * 60);
    let router = acp::router(&acp::keys(MemoryStore::default()));
    let send = async || {
        let headers = [
            ("authorization", "Bearer acp_alice"),
            ("content-type", "application/json"),
            (KEY, "k"),
        ];
        let request = request(Method::POST, SESSIONS, headers, CART);
        let response =
            tower::ServiceExt::oneshot(router.clone(), request.map(axum::body::Body::new));
        let response = response.await.expect("infallible");
        let body = axum::body::to_bytes(response.into_body(), 1 << 10).await;
        let session: Value = serde_json::from_slice(&body.expect("short")).expect("JSON");
        session["id"].clone()
    };
    assert_eq!(send().await, json!(1));
    tokio::time::advance(DAY.saturating_sub(Duration::from_secs(1))).await;
    assert_eq!(send().await, json!(1));
    tokio::time::advance(Duration::from_secs(2)).await;
    assert_eq!(send().await, json!(2));
}

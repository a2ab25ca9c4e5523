//! The rules of the Universal Commerce Protocol's specification "Message Signatures", section "Replay
//! Protection".

use axum_idem::Idempotency;
use axum_idem::store::MemoryStore;
use http::{Method, StatusCode};
use serde_json::Value;

use crate::examples::ucp;
use crate::support::{Answer, KEY, Server, request};

const SESSIONS: &str = "/shopping/checkout-sessions";
const UUID: &str = "550e8400-e29b-41d4-a716-446655440000";
const ORDER: &str =
    r#"{"currency": "USD", "line_items": [{"item": {"id": "bouquet_roses"}, "quantity": 1}]}"#;

#[derive(Clone, Copy)]
struct Platform {
    server: Server,
    agent: &'static str,
}

impl Platform {
    async fn of(idem: Idempotency) -> Self {
        let server = Server::start(ucp::router(&idem)).await;
        let agent = "profile=\"https://platform.example/profile\"";
        Self { server, agent }
    }

    async fn send(self, method: Method, path: &str, key: Option<&str>, body: &str) -> Answer {
        let headers = [
            ("ucp-agent", self.agent),
            ("content-type", "application/json"),
        ];
        let headers = headers.into_iter().chain(key.map(|key| (KEY, key)));
        let request = request(method, path, headers, body);
        self.server.send(request).await
    }

    async fn post(self, path: &str, key: &str, body: &str) -> Answer {
        self.send(Method::POST, path, Some(key), body).await
    }
}

fn id(answer: &Answer) -> String {
    let session: Value = serde_json::from_slice(&answer.body).expect("JSON");
    session["id"].as_str().expect("an id").to_owned()
}

#[tokio::test]
async fn a_key_has_at_least_128_bits() {
    let platform = Platform::of(ucp::keys(MemoryStore::default())).await;
    let answer = platform.post(SESSIONS, "order-42", ORDER).await;
    assert_eq!(answer.status, StatusCode::BAD_REQUEST);
    assert_eq!(answer.code(), "idempotency_key_invalid");
    for key in [UUID, "kR3nT8xQ2mV7pL9sW4yB6z"] {
        let answer = platform.post(SESSIONS, key, ORDER).await;
        assert_eq!(answer.status, StatusCode::CREATED, "{answer:?}");
    }
}

#[tokio::test]
async fn a_key_is_optional() {
    let platform = Platform::of(ucp::keys(MemoryStore::default())).await;
    let answer = platform.send(Method::POST, SESSIONS, None, ORDER).await;
    assert_eq!(answer.status, StatusCode::CREATED, "{answer:?}");
}

#[tokio::test]
async fn a_key_belongs_to_a_platform_and_an_operation() {
    let platform = Platform::of(ucp::keys(MemoryStore::default())).await;
    let other = Platform {
        agent: "profile=\"https://other.example/profile\"",
        ..platform
    };
    let first = platform.post(SESSIONS, UUID, ORDER).await;
    let second = other.post(SESSIONS, UUID, ORDER).await;
    assert_ne!(id(&first), id(&second));
    let cancel = format!("{SESSIONS}/{}/cancel", id(&first));
    let canceled = platform.post(&cancel, UUID, "").await;
    assert_eq!(canceled.status, StatusCode::OK, "{canceled:?}");
}

#[tokio::test]
async fn a_matching_payload_gets_the_first_response() {
    let platform = Platform::of(ucp::keys(MemoryStore::default())).await;
    let first = platform.post(SESSIONS, UUID, ORDER).await;
    let again = platform.post(SESSIONS, UUID, ORDER).await;
    assert_eq!((again.status, &again.body), (first.status, &first.body));
    assert!(again.is_replay());
    let path = format!("{SESSIONS}/{}", id(&first));
    for body in [ORDER, ORDER] {
        let updated = platform.send(Method::PUT, &path, Some(UUID), body).await;
        assert_eq!(updated.status, StatusCode::OK, "{updated:?}");
    }
}

/// The bytes count, not their meaning, because the digest in the signature covers the bytes.
#[tokio::test]
async fn a_mismatched_payload_is_409_and_has_no_effect() {
    let platform = Platform::of(ucp::keys(MemoryStore::default())).await;
    let first = platform.post(SESSIONS, UUID, ORDER).await;
    for other in [ORDER.replace("USD", "EUR"), ORDER.replace(": ", ":")] {
        let answer = platform.post(SESSIONS, UUID, &other).await;
        assert_eq!(answer.status, StatusCode::CONFLICT, "{answer:?}");
        assert_eq!(answer.code(), "idempotency_key_reused");
    }
    let path = format!("{SESSIONS}/{}", id(&first));
    let read = platform.send(Method::GET, &path, None, "").await;
    assert_eq!(read.body, first.body);
}

#[cfg(feature = "testing")]
#[tokio::test]
async fn a_store_that_fails_refuses_the_request_with_503() {
    use axum_idem::testing::{Fault, FaultStore, Operation};

    let store = FaultStore::new(axum_idem::store::MemoryStore::default());
    store.script(Operation::Claim, [Fault::ErrBefore; 9]);
    let dialect = axum_idem::Dialect::ucp();
    let idem = Idempotency::builder().dialect(dialect).store(store);
    let platform = Platform::of(idem.build()).await;
    let answer = platform.post(SESSIONS, UUID, ORDER).await;
    assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE, "{answer:?}");
    assert_eq!(answer.code(), "idempotency_store_unavailable");
}

/// A platform finds the checkout by the profile of the merchant.
#[tokio::test]
async fn the_profile_names_the_endpoint() {
    let platform = Platform::of(ucp::keys(MemoryStore::default())).await;
    let answer = platform
        .send(Method::GET, "/.well-known/ucp", None, "")
        .await;
    let profile: Value = serde_json::from_slice(&answer.body).expect("JSON");
    let service = &profile["ucp"]["services"]["dev.ucp.shopping"];
    assert_eq!(service["rest"]["endpoint"], "http://localhost/shopping");
}

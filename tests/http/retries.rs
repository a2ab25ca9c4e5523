//! Tests that a retry of the same request gets the first response, and a different request does not.

use axum::Router;
use axum::body::Bytes;
use axum::extract::{Path, State};
use axum::http::{Method, StatusCode};
use axum::routing::{any, post};
use axum_idem::{Idempotency, idempotent};

use crate::support::{KEY, Runs, Server, post as keyed, request};

#[idempotent(scope = global)]
async fn count(State(runs): State<Runs>, _: Bytes) -> (StatusCode, String) {
    (StatusCode::CREATED, runs.count().to_string())
}

#[idempotent(scope = global, required)]
async fn required(State(runs): State<Runs>, body: Bytes) -> (StatusCode, String) {
    let run = runs.count();
    (StatusCode::CREATED, format!("{run}: {} bytes", body.len()))
}

#[idempotent(scope = global)]
async fn by_account(State(runs): State<Runs>, Path(account): Path<u32>) -> String {
    format!("{} of account {account}", runs.count())
}

#[idempotent(scope = global, fingerprint = json)]
async fn json(State(runs): State<Runs>, _: Bytes) -> String {
    runs.count().to_string()
}

#[idempotent(scope = global, fingerprint = json("/amount", "/items/0/sku"))]
async fn pointers(State(runs): State<Runs>, _: Bytes) -> String {
    runs.count().to_string()
}

#[idempotent(scope = global, fingerprint = none)]
async fn head_only(State(runs): State<Runs>, _: Bytes) -> String {
    runs.count().to_string()
}

async fn plain(State(runs): State<Runs>) -> String {
    runs.count().to_string()
}

async fn start() -> (Server, Runs) {
    let runs = Runs::default();
    let router = Router::new()
        .route("/count", any(count))
        .route("/required", post(required))
        .route("/accounts/{id}/charge", post(by_account))
        .route("/json", post(json))
        .route("/pointers", post(pointers))
        .route("/head-only", post(head_only))
        .route("/plain", post(plain))
        .nest("/v1", Router::new().route("/count", post(count)))
        .nest("/v2", Router::new().route("/count", post(count)))
        .layer(Idempotency::in_memory())
        .with_state(runs.clone());
    (Server::start(router).await, runs)
}

#[tokio::test]
async fn ten_retries_replay_the_first_response() {
    let (server, runs) = start().await;
    let first = server.post("/count", "k", "{}").await;
    assert_eq!(
        (first.status, first.text(), first.is_replay()),
        (StatusCode::CREATED, "1", false)
    );
    for _ in 0..10 {
        let retry = server.post("/count", "k", "{}").await;
        assert_eq!(
            (retry.status, retry.text(), retry.is_replay()),
            (StatusCode::CREATED, "1", true)
        );
    }
    assert_eq!(runs.finished(), 1);
}

#[tokio::test]
async fn every_request_without_a_key_runs() {
    let (server, _) = start().await;
    for run in ["1", "2"] {
        let answer = server.send(request(Method::POST, "/count", [], "")).await;
        assert_eq!((answer.text(), answer.is_replay()), (run, false));
    }
}

#[tokio::test]
async fn a_required_key_that_is_missing_gets_400() {
    let (server, runs) = start().await;
    let answer = server
        .send(request(Method::POST, "/required", [], ""))
        .await;
    assert_eq!(answer.status, 400);
    assert_eq!(answer.code(), "idempotency_key_missing");
    assert_eq!(runs.started(), 0);
    assert_eq!(
        server.post("/required", "k", "ab").await.text(),
        "1: 2 bytes"
    );
    assert!(server.post("/required", "k", "ab").await.is_replay());
}

#[tokio::test]
async fn a_handler_without_the_attribute_ignores_keys() {
    let (server, runs) = start().await;
    server.post("/plain", "k", "").await;
    assert!(!server.post("/plain", "k", "").await.is_replay());
    assert_eq!(runs.finished(), 2);
}

#[tokio::test]
async fn put_patch_and_delete_are_protected_like_post() {
    let (server, runs) = start().await;
    for (run, method) in [Method::PUT, Method::PATCH, Method::DELETE]
        .into_iter()
        .enumerate()
    {
        let key = method.as_str();
        let send = || server.send(request(method.clone(), "/count", [(KEY, key)], "{}"));
        assert!(!send().await.is_replay());
        assert!(send().await.is_replay());
        assert_eq!(runs.finished(), run + 1);
    }
}

#[tokio::test]
async fn safe_methods_ignore_keys() {
    let (server, runs) = start().await;
    server.post("/count", "k", "").await;
    for method in [Method::GET, Method::HEAD, Method::OPTIONS, Method::TRACE] {
        let answer = server
            .send(request(method.clone(), "/count", [(KEY, "k")], ""))
            .await;
        assert!(!answer.is_replay(), "{method}");
        if method == Method::HEAD {
            assert!(answer.body.is_empty());
        }
    }
    assert_eq!(runs.finished(), 5);
}

#[tokio::test]
async fn a_key_reused_for_a_different_request_gets_409_and_keeps_the_record() {
    let (server, runs) = start().await;
    let json = ("content-type", "application/json");
    let first = || request(Method::POST, "/count?x=1", [(KEY, "k"), json], r#"{"a":1}"#);
    server.send(first()).await;
    let others = [
        request(Method::POST, "/count?x=1", [(KEY, "k"), json], r#"{"a":2}"#),
        request(
            Method::POST,
            "/count?x=1",
            [(KEY, "k"), json],
            r#"{"a": 1}"#,
        ),
        request(Method::POST, "/count?x=2", [(KEY, "k"), json], r#"{"a":1}"#),
        request(Method::POST, "/count", [(KEY, "k"), json], r#"{"a":1}"#),
        request(
            Method::POST,
            "/v1/count?x=1",
            [(KEY, "k"), json],
            r#"{"a":1}"#,
        ),
        request(Method::PUT, "/count?x=1", [(KEY, "k"), json], r#"{"a":1}"#),
        request(
            Method::POST,
            "/count?x=1",
            [(KEY, "k"), ("content-type", "text/plain")],
            r#"{"a":1}"#,
        ),
        request(Method::POST, "/count?x=1", [(KEY, "k")], r#"{"a":1}"#),
    ];
    for other in others {
        let answer = server.send(other).await;
        assert_eq!(answer.status, 409);
        assert_eq!(answer.code(), "idempotency_key_reused");
    }
    assert!(server.send(first()).await.is_replay());
    assert_eq!(runs.started(), 1);
}

#[tokio::test]
async fn a_path_parameter_is_part_of_the_fingerprint() {
    let (server, runs) = start().await;
    assert_eq!(
        server.post("/accounts/1/charge", "k", "").await.text(),
        "1 of account 1"
    );
    assert_eq!(
        server.post("/accounts/2/charge", "k", "").await.code(),
        "idempotency_key_reused"
    );
    assert_eq!(runs.started(), 1);
}

#[tokio::test]
async fn a_path_stripped_by_nesting_is_part_of_the_fingerprint() {
    let (server, _) = start().await;
    server.post("/v1/count", "k", "").await;
    assert_eq!(
        server.post("/v2/count", "k", "").await.code(),
        "idempotency_key_reused"
    );
}

#[tokio::test]
async fn bodies_of_any_content_type_are_compared_byte_by_byte() {
    let (server, _) = start().await;
    let send = |body| {
        server.send(request(
            Method::POST,
            "/count",
            [(KEY, "k"), ("content-type", "text/plain")],
            body,
        ))
    };
    send("one").await;
    assert!(send("one").await.is_replay());
    assert_eq!(send("two").await.code(), "idempotency_key_reused");
}

#[tokio::test]
async fn fingerprint_json_ignores_white_space_member_order_and_the_spelling_of_numbers() {
    let (server, runs) = start().await;
    server.post("/json", "k", r#"{"a":1,"b":[1,2]}"#).await;
    for same in [
        " {\"b\": [1, 2], \"a\": 1}\n",
        r#"{"a":1.0,"b":[1e0,20e-1]}"#,
    ] {
        let answer = server.post("/json", "k", same).await;
        assert!(answer.is_replay(), "{same}");
    }
    for other in [
        r#"{"a":1,"b":[2,1]}"#,
        r#"{"a":10,"b":[1,2]}"#,
        r#"{"a":1,"a":1,"b":[1,2]}"#,
        "no json",
    ] {
        assert_eq!(
            server.post("/json", "k", other).await.code(),
            "idempotency_key_reused",
            "{other}"
        );
    }
    assert_eq!(runs.started(), 1);
}

#[tokio::test]
async fn fingerprint_json_pointers_compare_only_the_named_values() {
    let (server, _) = start().await;
    server
        .post(
            "/pointers",
            "k",
            r#"{"amount":1,"items":[{"sku":"a"}],"at":1}"#,
        )
        .await;
    let same = r#"{"at":2,"items":[{"sku":"a","n":3},{}],"amount":1}"#;
    assert!(server.post("/pointers", "k", same).await.is_replay());
    let other = r#"{"amount":1,"items":[{"sku":"b"}],"at":1}"#;
    assert_eq!(
        server.post("/pointers", "k", other).await.code(),
        "idempotency_key_reused"
    );
    // A misspelled pointer must not make all bodies equal.
    server.post("/pointers", "none", r#"{"cents":1}"#).await;
    let other = server.post("/pointers", "none", r#"{"cents":2}"#).await;
    assert_eq!(other.code(), "idempotency_key_reused");
}

#[tokio::test]
async fn fingerprint_none_ignores_the_body() {
    let (server, _) = start().await;
    server.post("/head-only", "k", "--boundary-1").await;
    assert!(
        server
            .post("/head-only", "k", "--boundary-2")
            .await
            .is_replay()
    );
    assert_eq!(
        server.post("/head-only?x", "k", "").await.code(),
        "idempotency_key_reused"
    );
}

#[tokio::test]
async fn chunked_framing_does_not_change_the_fingerprint() {
    let (server, runs) = start().await;
    server.send(keyed("/count", "k", "abc")).await;
    let chunked = "POST /count HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer alice\r\nidempotency-key: k\r\n\
                   connection: close\r\ntransfer-encoding: chunked\r\n\r\n1\r\na\r\n1\r\nb\r\n1\r\nc\r\n0\r\n\r\n";
    let answer = server.write_and_read(chunked).await;
    assert!(String::from_utf8_lossy(&answer).contains("idempotency-replayed: true"));
    assert_eq!(runs.started(), 1);
}

#[tokio::test]
async fn pipelined_duplicates_run_once() {
    let (server, runs) = start().await;
    let one = crate::support::post_bytes("/count", "k", "abc");
    let last = one.replacen("\r\n", "\r\nconnection: close\r\n", 1);
    let answers = server.write_and_read(format!("{one}{last}")).await;
    let answers = String::from_utf8_lossy(&answers);
    assert_eq!(answers.matches("HTTP/1.1 201").count(), 2);
    assert_eq!(answers.matches("idempotency-replayed: true").count(), 1);
    assert_eq!(runs.started(), 1);
}

#[tokio::test]
async fn a_retry_over_http_2_is_replayed() {
    let (server, runs) = start().await;
    let mut connection = server.http2().await;
    for is_replay in [false, true] {
        let mut request = keyed("/count", "k", "abc");
        *request.uri_mut() = "http://localhost/count".parse().expect("a URI");
        let answer = connection.send_request(request).await.expect("a response");
        assert_eq!(answer.status(), 201);
        assert_eq!(
            answer.headers().contains_key("idempotency-replayed"),
            is_replay
        );
    }
    assert_eq!(runs.started(), 1);
}

#[tokio::test]
async fn a_retry_over_http_1_0_is_replayed() {
    let (server, runs) = start().await;
    let request = "POST /count HTTP/1.0\r\nidempotency-key: k\r\ncontent-length: 1\r\n\r\na";
    for is_replay in [false, true] {
        let answer = server.write_and_read(request).await;
        assert_eq!(
            String::from_utf8_lossy(&answer).contains("idempotency-replayed: true"),
            is_replay
        );
    }
    assert_eq!(runs.started(), 1);
}

/// Fingerprints of different digests are never equal.
#[cfg(feature = "blake3")]
#[tokio::test]
async fn a_retry_across_a_change_of_the_fingerprint_digest_gets_409() {
    use axum_idem::FingerprintDigest;
    use axum_idem::store::MemoryStore;

    let store = MemoryStore::default();
    let runs = Runs::default();
    let start = async |digest| {
        let idem = Idempotency::builder()
            .store(store.clone())
            .fingerprint_digest(digest);
        let router = Router::new().route("/count", post(count));
        Server::start(router.layer(idem.build()).with_state(runs.clone())).await
    };
    let before = start(FingerprintDigest::Sha256).await;
    let after = start(FingerprintDigest::Blake3).await;
    assert_eq!(before.post("/count", "k", "{}").await.text(), "1");
    assert_eq!(
        after.post("/count", "k", "{}").await.code(),
        "idempotency_key_reused"
    );
    assert_eq!(after.post("/count", "new", "{}").await.text(), "2");
    assert!(after.post("/count", "new", "{}").await.is_replay());
}

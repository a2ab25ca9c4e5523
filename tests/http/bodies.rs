//! Tests that the body is read completely before anything is claimed.

use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, Request, State};
use axum::http::Method;
use axum::routing::post;
use axum_idem::{Idempotency, idempotent};
use http_body_util::{Full, StreamBody};
use tokio::io::AsyncWriteExt;

use crate::support::{KEY, Runs, Server, post_bytes, read_to_end, request, status_of};

#[idempotent(scope = global)]
async fn bytes(State(runs): State<Runs>, body: Bytes) -> String {
    format!("{}: {} bytes", runs.count(), body.len())
}

#[idempotent(scope = global)]
async fn whole_request(State(runs): State<Runs>, request: Request) -> String {
    let body = axum::body::to_bytes(request.into_body(), usize::MAX)
        .await
        .expect("a whole body");
    format!("{}: {} bytes", runs.count(), body.len())
}

/// `required` keeps the request undecided for longer.
#[idempotent(scope = global, required)]
async fn whole_request_with_a_key(State(runs): State<Runs>, request: Request) -> String {
    let body = axum::body::to_bytes(request.into_body(), usize::MAX)
        .await
        .expect("a whole body");
    format!("{}: {} bytes", runs.count(), body.len())
}

async fn start() -> (Server, Runs) {
    let runs = Runs::default();
    let idem = Idempotency::builder()
        .body_timeout(Duration::from_millis(100))
        .max_request_body(3_000_000)
        .build();
    let limited = |limit| {
        Router::new()
            .route("/bytes", post(bytes))
            .layer(DefaultBodyLimit::max(limit))
    };
    let router = Router::new()
        .route("/bytes", post(bytes))
        .route("/request", post(whole_request))
        .route("/required", post(whole_request_with_a_key))
        .nest("/limit-100", limited(100))
        .nest("/limit-0", limited(0))
        .route("/unlimited", post(bytes).layer(DefaultBodyLimit::disable()))
        .layer(idem)
        .with_state(runs.clone());
    (Server::start(router).await, runs)
}

#[tokio::test]
async fn a_body_up_to_the_limit_passes_and_a_longer_body_gets_413() {
    let (server, runs) = start().await;
    let send = |path, key, len| async move { server.post(path, key, &"a".repeat(len)).await };
    assert_eq!(
        send("/limit-100/bytes", "a", 100).await.text(),
        "1: 100 bytes"
    );
    let over = send("/limit-100/bytes", "b", 101).await;
    assert_eq!(
        (over.status.as_u16(), over.code().as_str()),
        (413, "idempotency_body_too_large")
    );
    assert_eq!(send("/limit-0/bytes", "c", 0).await.text(), "2: 0 bytes");
    assert_eq!(send("/limit-0/bytes", "d", 1).await.status, 413);
    assert_eq!(
        send("/unlimited", "e", 3_000_000).await.text(),
        "3: 3000000 bytes"
    );
    assert_eq!(runs.started(), 3);
}

/// An extractor that reads the request itself does not apply axum's limit.
#[tokio::test]
async fn every_extractor_observes_the_default_body_limit() {
    let (server, runs) = start().await;
    for path in ["/bytes", "/request", "/required"] {
        let answer = server.post(path, "k", &"a".repeat(2_097_153)).await;
        assert_eq!(
            (answer.status.as_u16(), answer.code().as_str()),
            (413, "idempotency_body_too_large")
        );
    }
    assert_eq!(runs.started(), 0);
    assert_eq!(
        server
            .post("/request", "k", &"a".repeat(2_097_152))
            .await
            .text(),
        "1: 2097152 bytes"
    );
}

#[tokio::test]
async fn a_chunked_body_is_stopped_at_the_limit() {
    let (server, runs) = start().await;
    let head = "POST /limit-100/bytes HTTP/1.1\r\nhost: a\r\nidempotency-key: k\r\nconnection: close\r\n\
                transfer-encoding: chunked\r\n\r\n";
    let chunk = format!("40\r\n{}\r\n", "a".repeat(64));
    let mut stream = server.write(format!("{head}{chunk}{chunk}")).await;
    stream.flush().await.expect("the write succeeds");
    assert_eq!(status_of(&read_to_end(stream).await), 413);
    assert_eq!(runs.started(), 0);
}

#[tokio::test]
async fn a_retry_with_a_too_long_body_keeps_the_record() {
    let (server, runs) = start().await;
    server.post("/limit-100/bytes", "k", "abc").await;
    assert_eq!(
        server
            .post("/limit-100/bytes", "k", &"a".repeat(101))
            .await
            .status,
        413
    );
    assert!(
        server
            .post("/limit-100/bytes", "k", "abc")
            .await
            .is_replay()
    );
    assert_eq!(runs.started(), 1);
}

#[tokio::test]
async fn a_content_length_over_the_limit_is_refused_without_100_continue() {
    let (server, _) = start().await;
    let head = "POST /limit-100/bytes HTTP/1.1\r\nhost: a\r\nidempotency-key: k\r\nconnection: close\r\n\
                expect: 100-continue\r\ncontent-length: 101\r\n\r\n";
    let answer = server.write_and_read(head).await;
    assert_eq!(
        status_of(&answer),
        413,
        "{}",
        String::from_utf8_lossy(&answer)
    );
}

#[tokio::test]
async fn an_invalid_key_is_refused_without_100_continue() {
    let (server, _) = start().await;
    let head = "POST /bytes HTTP/1.1\r\nhost: a\r\nidempotency-key: a,b\r\nconnection: close\r\n\
                expect: 100-continue\r\ncontent-length: 10\r\n\r\n";
    let answer = server.write_and_read(head).await;
    assert_eq!(
        status_of(&answer),
        400,
        "{}",
        String::from_utf8_lossy(&answer)
    );
}

#[tokio::test]
async fn a_truncated_body_gets_400_and_claims_nothing() {
    let (server, runs) = start().await;
    let mut stream = server
        .write(post_bytes("/bytes", "k", "abcdefgh").replace("abcdefgh", "abcd"))
        .await;
    stream
        .shutdown()
        .await
        .expect("the socket can be shut down");
    let answer = read_to_end(stream).await;
    assert_eq!(status_of(&answer), 400);
    assert!(String::from_utf8_lossy(&answer).contains("idempotency_body_incomplete"));
    assert_eq!(runs.started(), 0);
    // The truncated request claimed nothing, so another body may use the key.
    assert_eq!(
        server.post("/bytes", "k", "other").await.text(),
        "1: 5 bytes"
    );
}

#[tokio::test]
async fn a_client_that_closes_within_its_body_claims_nothing() {
    let (server, runs) = start().await;
    for _ in 0..10 {
        drop(
            server
                .write(post_bytes("/bytes", "k", "abcdefgh").replace("abcdefgh", "abcd"))
                .await,
        );
    }
    assert_eq!(
        server.post("/bytes", "k", "abcdefgh").await.text(),
        "1: 8 bytes"
    );
    assert_eq!(runs.started(), 1);
}

#[tokio::test]
async fn a_stalled_body_claims_nothing_and_gets_408() {
    let (server, runs) = start().await;
    let stalled = server
        .write(post_bytes("/bytes", "k", "abcdefgh").replace("abcdefgh", "ab"))
        .await;
    assert_eq!(
        server.post("/bytes", "k", "other").await.text(),
        "1: 5 bytes"
    );
    let answer = read_to_end(stalled).await;
    assert_eq!(status_of(&answer), 408);
    assert!(String::from_utf8_lossy(&answer).contains("idempotency_body_timeout"));
    assert_eq!(runs.started(), 1);
}

#[tokio::test]
async fn a_body_in_many_frames_reaches_the_handler_whole() {
    let (server, runs) = start().await;
    let frames = (0..50)
        .map(|_| Ok::<_, std::convert::Infallible>(http_body::Frame::data(Bytes::from("ab"))));
    let body = StreamBody::new(futures_util::stream::iter(frames));
    let bytes = http_body_util::BodyExt::collect(body)
        .await
        .expect("infallible")
        .to_bytes();
    let mut request = request(Method::POST, "/bytes", [(KEY, "k")], "");
    *request.body_mut() = Full::new(bytes);
    assert_eq!(server.send(request).await.text(), "1: 100 bytes");
    let chunks = "2\r\nab\r\n".repeat(50);
    let head = "POST /bytes HTTP/1.1\r\nhost: a\r\nidempotency-key: k\r\nconnection: close\r\ntransfer-encoding: chunked\r\n\r\n";
    let answer = server
        .write_and_read(format!("{head}{chunks}0\r\n\r\n"))
        .await;
    assert!(String::from_utf8_lossy(&answer).contains("idempotency-replayed: true"));
    assert_eq!(runs.started(), 1);
}

#[tokio::test]
async fn an_invalid_content_length_does_not_reach_the_handler() {
    let (server, runs) = start().await;
    for length in ["-1", "x", "1, 2"] {
        let request = format!(
            "POST /bytes HTTP/1.1\r\nhost: a\r\nidempotency-key: k\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n"
        );
        assert_eq!(
            status_of(&server.write_and_read(request).await),
            400,
            "{length}"
        );
    }
    assert_eq!(runs.started(), 0);
}

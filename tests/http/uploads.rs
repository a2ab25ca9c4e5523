//! Request bodies: how much of one is kept in memory, and one that is streamed to its handler.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{DefaultBodyLimit, Request, State};
use axum::http::{Method, StatusCode};
use axum::routing::post;
use axum_idem::{DoNotRecord, Idempotency, idempotent};
use futures_util::StreamExt;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tower_http::timeout::TimeoutLayer;

use crate::support::{
    KEY, PATIENCE, Runs, Server, eventually, post as keyed, read_to_end, request, status_of,
};

#[derive(Clone, Default)]
struct Uploads {
    runs: Runs,
    /// How each upload ended for its handler: the bytes that came, and whether an error followed.
    ends: Arc<Mutex<Vec<(usize, bool)>>>,
}

impl Uploads {
    fn ends(&self) -> Vec<(usize, bool)> {
        self.ends.lock().expect("no panic").clone()
    }

    async fn until_ended(&self) -> (usize, bool) {
        eventually("an upload ends", || !self.ends().is_empty()).await;
        self.ends()[0]
    }
}

#[idempotent(scope = global)]
async fn buffered(State(uploads): State<Uploads>, body: Bytes) -> String {
    uploads.runs.count();
    body.len().to_string()
}

/// Begins when the first piece is there, and waits at the gate behind the first piece.
#[idempotent(scope = global, fingerprint = none)]
async fn streamed(
    State(uploads): State<Uploads>,
    request: Request,
) -> Result<(StatusCode, String), (StatusCode, DoNotRecord, &'static str)> {
    let mut pieces = request.into_body().into_data_stream();
    let mut len = 0;
    while let Some(piece) = pieces.next().await {
        let Ok(piece) = piece else {
            uploads.ends.lock().expect("no panic").push((len, true));
            return Err((StatusCode::BAD_REQUEST, DoNotRecord, "cut off"));
        };
        if len == 0 {
            uploads.runs.pass().await;
        }
        len += piece.len();
    }
    uploads.ends.lock().expect("no panic").push((len, false));
    Ok((StatusCode::CREATED, len.to_string()))
}

#[idempotent(scope = global, fingerprint = none)]
async fn streamed_bytes(State(uploads): State<Uploads>, body: Bytes) -> String {
    uploads.runs.count();
    body.len().to_string()
}

/// Its rejections are not recorded, because its body is streamed.
#[idempotent(scope = global, fingerprint = none)]
async fn streamed_text(State(uploads): State<Uploads>, body: String) -> String {
    uploads.runs.count();
    body
}

async fn start_with(
    idem: Idempotency,
    layered: impl FnOnce(Router) -> Router,
) -> (Server, Uploads) {
    let uploads = Uploads::default();
    let router = Router::new()
        .route("/buffered", post(buffered))
        .route("/streamed", post(streamed))
        .route("/streamed-bytes", post(streamed_bytes))
        .route("/streamed-text", post(streamed_text))
        .layer(DefaultBodyLimit::disable())
        .route(
            "/limited",
            post(streamed_bytes).layer(DefaultBodyLimit::max(10)),
        )
        .layer(idem)
        .with_state(uploads.clone());
    (Server::start(layered(router)).await, uploads)
}

async fn start() -> (Server, Uploads, Idempotency) {
    let idem = Idempotency::in_memory();
    let (server, uploads) = start_with(idem.clone(), |router| router).await;
    (server, uploads, idem)
}

const TWO_MEBIBYTES: usize = 2 << 20;
const TOO_LARGE: &str = "idempotency_body_too_large";

#[tokio::test]
async fn a_body_with_a_key_is_limited_even_without_the_limit_of_axum() {
    let (server, uploads, _) = start().await;
    let (long, longer) = ("a".repeat(TWO_MEBIBYTES), "a".repeat(TWO_MEBIBYTES + 1));
    let kept = server.post("/buffered", "k", &long).await;
    assert_eq!(kept.text(), TWO_MEBIBYTES.to_string());
    let refused = server.post("/buffered", "k2", &longer).await;
    assert_eq!(
        (refused.status.as_u16(), refused.code().as_str()),
        (413, TOO_LARGE)
    );
    let unkeyed = request(Method::POST, "/buffered", [], &longer);
    assert_eq!(server.send(unkeyed).await.status, 200);
    let streamed = server.post("/streamed-bytes", "k3", &longer).await;
    assert_eq!(streamed.text(), longer.len().to_string());
    assert_eq!(uploads.runs.started(), 3);
}

#[tokio::test]
async fn a_service_can_limit_the_buffered_body() {
    let idem = Idempotency::builder().max_request_body(4).build();
    let (server, uploads) = start_with(idem, |router| router).await;
    assert_eq!(server.post("/buffered", "k", "abcd").await.text(), "4");
    assert_eq!(
        server.post("/buffered", "k2", "abcde").await.code(),
        TOO_LARGE
    );
    // A body that does not announce its length.
    let chunked = format!(
        "POST /buffered HTTP/1.1\r\nhost: localhost\r\n{KEY}: k3\r\nconnection: close\r\n\
         transfer-encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n"
    );
    assert_eq!(status_of(&server.write_and_read(chunked).await), 413);
    assert_eq!(
        server.post("/streamed-bytes", "k4", "abcde").await.text(),
        "5"
    );
    assert_eq!(uploads.runs.started(), 2);
}

#[tokio::test]
async fn a_streamed_body_has_axums_limit() {
    let (server, uploads, _) = start().await;
    assert_eq!(
        server.post("/limited", "k", "0123456789").await.text(),
        "10"
    );
    assert_eq!(
        server.post("/limited", "k2", "0123456789a").await.status,
        413
    );
    assert_eq!(uploads.runs.started(), 1);
}

fn head(path: &str, key: &str, framing: &str) -> String {
    format!(
        "POST {path} HTTP/1.1\r\nhost: localhost\r\n{KEY}: {key}\r\nconnection: close\r\n{framing}\r\n\r\n"
    )
}

#[tokio::test]
async fn a_streamed_body_reaches_its_handler_while_it_arrives() {
    let (server, uploads, _) = start().await;
    let mut stream = server
        .write(head("/streamed", "k", "content-length: 6") + "abc")
        .await;
    uploads.runs.until_started(1).await;
    let retry = server.post("/streamed", "k", "abcdef").await;
    assert_eq!(retry.code(), "idempotency_key_in_flight");
    uploads.runs.open(1);
    stream.write_all(b"def").await.expect("written");
    assert_eq!(status_of(&read_to_end(stream).await), 201);
    assert_eq!(uploads.ends(), [(6, false)]);
    // The body of a retry does not count.
    let replay = server.post("/streamed", "k", "another one").await;
    assert_eq!((replay.text(), replay.is_replay()), ("6", true));
    assert_eq!(uploads.runs.started(), 1);
}

/// With a length and without one; while the handler waits for more, and while it works.
#[tokio::test]
async fn an_upload_that_is_cut_off_reaches_its_handler_as_an_error() {
    for (framing, body) in [
        ("content-length: 6", "abc"),
        ("transfer-encoding: chunked", "3\r\nabc\r\n"),
        ("transfer-encoding: chunked", "3\r\nabc\r\n3\r\nd"),
    ] {
        for opens_first in [true, false] {
            let (server, uploads, idem) = start().await;
            let stream = server.write(head("/streamed", "k", framing) + body).await;
            uploads.runs.until_started(1).await;
            if opens_first {
                uploads.runs.open(1);
                uploads.runs.until_finished(1).await;
                drop(stream);
            } else {
                drop(stream);
                uploads.runs.open(1);
            }
            let (_, is_error) = uploads.until_ended().await;
            assert!(is_error, "{framing}, {opens_first}: {:?}", uploads.ends());
            idem.drain(PATIENCE).await;
            // The handler released its key.
            uploads.runs.open(1);
            let retry = server.post("/streamed", "k", "abcdef").await;
            assert_eq!((retry.status.as_u16(), retry.text()), (201, "6"));
        }
    }
}

#[tokio::test]
async fn an_upload_that_http_2_resets_reaches_its_handler_as_an_error() {
    let (server, uploads, idem) = start().await;
    let io = hyper_util::rt::TokioIo::new(server.connect().await);
    let executor = hyper_util::rt::TokioExecutor::new();
    let (mut sender, connection) = hyper::client::conn::http2::handshake(executor, io)
        .await
        .expect("HTTP/2");
    tokio::spawn(connection);
    let pieces = futures_util::stream::iter([Ok::<_, std::convert::Infallible>("abc")])
        .chain(futures_util::stream::pending());
    let upload = keyed("http://localhost/streamed", "k", "").map(|_| Body::from_stream(pieces));
    let response = tokio::spawn(async move {
        let response = sender.send_request(upload).await;
        drop(response);
    });
    uploads.runs.until_started(1).await;
    uploads.runs.open(1);
    uploads.runs.until_finished(1).await;
    response.abort();
    assert_eq!(uploads.until_ended().await, (3, true));
    idem.drain(PATIENCE).await;
}

/// The response of the outer layer ends the upload, and the handler runs on.
#[tokio::test]
async fn an_upload_that_an_outer_timeout_ends_reaches_its_handler_as_an_error() {
    let timeout =
        TimeoutLayer::with_status_code(StatusCode::REQUEST_TIMEOUT, Duration::from_millis(100));
    let (server, uploads) =
        start_with(Idempotency::in_memory(), |router| router.layer(timeout)).await;
    for (key, framing, body) in [
        ("k1", "content-length: 6", "abc"),
        ("k2", "transfer-encoding: chunked", "3\r\nabc\r\n"),
    ] {
        uploads.ends.lock().expect("no panic").clear();
        let mut stream = server.write(head("/streamed", key, framing) + body).await;
        // hyper waits for the rest of the body behind the response.
        let mut response = [0; 12];
        let read = stream.read_exact(&mut response);
        let read = tokio::time::timeout(PATIENCE, read).await;
        read.expect("it is sent").expect("read");
        assert_eq!(status_of(&response), 408);
        drop(stream);
        uploads.runs.open(1);
        assert_eq!(uploads.until_ended().await, (3, true), "{framing}");
    }
}

/// A body that was cut off would be rejected, too, and the retry with the whole body must run.
#[tokio::test]
async fn a_rejection_of_a_streamed_body_is_never_recorded() {
    let (server, uploads) = start_with(Idempotency::in_memory(), |router| router).await;
    let not_text = request(Method::POST, "/streamed-text", [(KEY, "k")], "");
    let not_text = not_text.map(|_| Bytes::from_static(&[0xff]).into());
    assert_eq!(server.send(not_text).await.status, 400);
    let retry = server.post("/streamed-text", "k", "whole").await;
    assert_eq!((retry.text(), retry.is_replay()), ("whole", false));
    assert_eq!(uploads.runs.started(), 1);
}

//! Tests which parts of a response are recorded, and what the client receives meanwhile.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes, HttpBody};
use axum::extract::{Query, Request, State};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode};
use axum::middleware::{Next, from_fn};
use axum::response::sse::{Event, Sse};
use axum::response::{AppendHeaders, IntoResponse, Response};
use axum::routing::post;
use axum_idem::{Idempotency, idempotent};
use futures_util::{Stream, StreamExt, stream};
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};
use serde::Deserialize;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tower_http::compression::CompressionLayer;

use crate::support::{KEY, PATIENCE, Runs, Server, post_bytes, request};

const LIMIT: usize = 1_000;

#[idempotent(scope = global)]
async fn headers(State(runs): State<Runs>) -> impl IntoResponse {
    runs.count();
    let headers = AppendHeaders([
        ("x-multi", "a"),
        ("location", "/1"),
        ("x-multi", "b"),
        ("etag", "\"1\""),
        ("vary", "accept"),
        ("set-cookie", "session=1"),
        ("connection", "x-hop"),
        ("x-hop", "1"),
        ("www-authenticate", "Bearer"),
        ("content-type", "text/html"),
    ]);
    (StatusCode::CREATED, headers, "<p>")
}

#[idempotent(scope = global)]
async fn cacheable(State(runs): State<Runs>) -> impl IntoResponse {
    runs.count();
    ([("cache-control", "max-age=60")], "cached")
}

#[derive(Deserialize)]
struct Size {
    n: usize,
}

#[idempotent(scope = global)]
async fn bytes(State(runs): State<Runs>, Query(Size { n }): Query<Size>) -> Vec<u8> {
    runs.count();
    (0..n).map(|at| at.to_le_bytes()[0]).collect()
}

/// Returns the same bytes as `bytes`, without a known length.
#[idempotent(scope = global)]
async fn streamed(State(runs): State<Runs>, Query(Size { n }): Query<Size>) -> Body {
    runs.count();
    let bytes =
        (0..n).map(|at| Ok::<_, Infallible>(Bytes::copy_from_slice(&at.to_le_bytes()[..1])));
    Body::from_stream(stream::iter(bytes))
}

#[idempotent(scope = global)]
async fn echo(State(runs): State<Runs>, body: Bytes) -> Bytes {
    runs.count();
    body
}

#[idempotent(scope = global)]
async fn events(State(runs): State<Runs>) -> Sse<impl Stream<Item = Result<Event, Infallible>>> {
    runs.count();
    let first = stream::iter([Ok(Event::default().data("first"))]);
    Sse::new(first.chain(stream::pending()))
}

#[idempotent(scope = global)]
async fn broken(State(runs): State<Runs>) -> Body {
    runs.count();
    Body::from_stream(stream::iter([Ok("0123456789"), Err("broken")]))
}

/// Ends before its `content-length`, like a file that shrank while the handler read it.
#[idempotent(scope = global)]
async fn shrunk(State(runs): State<Runs>) -> impl IntoResponse {
    runs.count();
    let body = Body::from_stream(stream::iter([Ok::<_, Infallible>("abcd")]));
    ([("content-length", "10")], body)
}

struct Panics;

impl HttpBody for Panics {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        panic!("this body panics when it is polled");
    }
}

#[idempotent(scope = global)]
async fn panics(State(runs): State<Runs>) -> Body {
    runs.count();
    Body::new(Panics)
}

#[idempotent(scope = global)]
async fn trailers(State(runs): State<Runs>) -> Response {
    runs.count();
    let trailers = HeaderMap::from_iter([(
        "x-sum".parse().expect("a header name"),
        HeaderValue::from_static("7"),
    )]);
    let frames = [
        Ok::<_, Infallible>(Frame::data(Bytes::from("abc"))),
        Ok(Frame::trailers(trailers)),
    ];
    let body = Body::new(StreamBody::new(stream::iter(frames)));
    ([("trailer", "x-sum")], body).into_response()
}

/// Announces a length over the limit, and sends the rest only when nobody needs it any more.
#[idempotent(scope = global)]
async fn announced(State(runs): State<Runs>) -> impl IntoResponse {
    runs.count();
    let body = stream::iter([Ok::<_, Infallible>("first")]).chain(stream::pending());
    ([("content-length", "1000000000")], Body::from_stream(body))
}

/// Sends a time of its own, as a handler does that forwards the response of another service.
#[idempotent(scope = global)]
async fn dated(State(runs): State<Runs>) -> impl IntoResponse {
    runs.count();
    ([("date", "Thu, 01 Jan 1970 00:00:00 GMT")], "dated")
}

/// The library does not record a failed response, so it must not buffer this body.
#[idempotent(scope = global)]
async fn endless_failure(State(runs): State<Runs>) -> (StatusCode, Body) {
    runs.count();
    let body = stream::iter([Ok::<_, Infallible>("first")]).chain(stream::pending());
    (StatusCode::BAD_GATEWAY, Body::from_stream(body))
}

#[idempotent(scope = global)]
async fn upgrade(State(runs): State<Runs>) -> impl IntoResponse {
    runs.count();
    (
        StatusCode::SWITCHING_PROTOCOLS,
        [("connection", "upgrade"), ("upgrade", "x")],
    )
}

async fn number(request: Request, next: Next) -> Response {
    use std::sync::atomic::{AtomicUsize, Ordering};
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    let mut response = next.run(request).await;
    response
        .headers_mut()
        .insert("x-request-id", NEXT.fetch_add(1, Ordering::Relaxed).into());
    response
}

async fn start_with(idem: Idempotency) -> (Server, Runs) {
    let runs = Runs::default();
    let router = Router::new()
        .route("/headers", post(headers))
        .route("/cacheable", post(cacheable))
        .route("/bytes", post(bytes))
        .route("/streamed", post(streamed))
        .route("/echo", post(echo))
        .route("/events", post(events))
        .route("/broken", post(broken))
        .route("/shrunk", post(shrunk))
        .route("/panics", post(panics))
        .route("/trailers", post(trailers))
        .route("/announced", post(announced))
        .route("/dated", post(dated))
        .route("/endless-failure", post(endless_failure))
        .route("/upgrade", post(upgrade))
        .layer(idem)
        .layer(from_fn(number))
        .layer(CompressionLayer::new())
        .with_state(runs.clone());
    (Server::start(router).await, runs)
}

async fn start() -> (Server, Runs) {
    start_with(Idempotency::builder().max_recorded_body(LIMIT).build()).await
}

#[tokio::test]
async fn a_replay_has_the_first_headers_and_a_replay_header() {
    let (server, _) = start().await;
    let first = server.post("/headers", "k", "").await;
    assert_eq!(first.headers["set-cookie"], "session=1");
    assert!(!first.headers.contains_key("cache-control"));
    let replay = server.post("/headers", "k", "").await;
    assert_eq!((replay.status, &replay.body), (first.status, &first.body));
    for name in ["location", "etag", "vary", "content-type", "content-length"] {
        assert_eq!(replay.headers[name], first.headers[name], "{name}");
    }
    let multi: Vec<_> = replay.headers.get_all("x-multi").iter().collect();
    assert_eq!(multi, ["a", "b"]);
    for name in ["set-cookie", "x-hop", "www-authenticate"] {
        assert!(!replay.headers.contains_key(name), "{name}");
    }
    assert_eq!(replay.headers["idempotency-replayed"], "true");
    assert_eq!(replay.headers["cache-control"], "no-store");
    assert_ne!(
        replay.headers["x-request-id"],
        first.headers["x-request-id"]
    );
    assert_eq!(replay.headers.get_all("date").iter().count(), 1);
}

#[tokio::test]
async fn a_replay_has_the_date_of_its_own_response() {
    let (server, runs) = start().await;
    let first = server.post("/dated", "k", "").await;
    assert_eq!(first.headers["date"], "Thu, 01 Jan 1970 00:00:00 GMT");
    let replay = server.post("/dated", "k", "").await;
    assert!(replay.is_replay());
    assert_eq!(replay.headers.get_all("date").iter().count(), 1);
    assert_ne!(replay.headers["date"], first.headers["date"]);
    assert_eq!(runs.started(), 1);
}

#[tokio::test]
async fn set_cookie_is_recorded_when_the_service_asks_for_it() {
    let (server, _) = start_with(Idempotency::builder().record_set_cookie().build()).await;
    server.post("/headers", "k", "").await;
    assert_eq!(
        server.post("/headers", "k", "").await.headers["set-cookie"],
        "session=1"
    );
}

#[tokio::test]
async fn a_cache_control_header_of_the_handler_is_replayed() {
    let (server, _) = start().await;
    server.post("/cacheable", "k", "").await;
    assert_eq!(
        server.post("/cacheable", "k", "").await.headers["cache-control"],
        "max-age=60"
    );
}

#[tokio::test]
async fn every_byte_value_is_replayed() {
    let (server, runs) = start().await;
    let body: Vec<u8> = (0..=255).collect();
    for is_replay in [false, true] {
        let mut request = request(Method::POST, "/echo", [(KEY, "k")], "");
        *request.body_mut() = Bytes::from(body.clone()).into();
        let answer = server.send(request).await;
        assert_eq!(
            (answer.is_replay(), &answer.body[..]),
            (is_replay, &body[..])
        );
    }
    assert_eq!(runs.started(), 1);
}

#[tokio::test]
async fn a_response_up_to_the_limit_is_recorded_and_a_longer_response_is_not() {
    let (server, runs) = start().await;
    for path in ["/bytes", "/streamed"] {
        let at_limit = format!("{path}?n={LIMIT}");
        let first = server.post(&at_limit, &at_limit, "").await;
        let replay = server.post(&at_limit, &at_limit, "").await;
        assert!(replay.is_replay());
        assert_eq!(replay.body, first.body);

        let over_limit = format!("{path}?n={}", 5 * LIMIT);
        let first = server.post(&over_limit, &over_limit, "").await;
        assert_eq!((first.status.as_u16(), first.body.len()), (200, 5 * LIMIT));
        let runs_before = runs.started();
        let retry = server.post(&over_limit, &over_limit, "").await;
        assert_eq!(
            (retry.status.as_u16(), retry.code().as_str()),
            (409, "idempotency_response_not_kept")
        );
        assert_eq!(runs.started(), runs_before);
    }
}

/// Reads from an endless body until `wanted` has arrived.
async fn read_until(server: Server, path: &str, wanted: &str) -> String {
    let mut stream = server.write(post_bytes(path, "k", "")).await;
    let mut read = Vec::new();
    while !String::from_utf8_lossy(&read).contains(wanted) {
        let mut chunk = [0; 1024];
        let len = tokio::time::timeout(PATIENCE, stream.read(&mut chunk)).await;
        let len = len
            .expect("the first bytes arrive")
            .expect("the read succeeds");
        assert_ne!(
            len,
            0,
            "the connection ended early: {}",
            String::from_utf8_lossy(&read)
        );
        read.extend_from_slice(&chunk[..len]);
    }
    String::from_utf8_lossy(&read).into_owned()
}

#[tokio::test]
async fn an_endless_response_streams_to_the_client_and_is_not_recorded() {
    let (server, runs) = start().await;
    read_until(server, "/events", "data: first").await;
    assert_eq!(
        server.post("/events", "k", "").await.code(),
        "idempotency_response_not_kept"
    );
    assert_eq!(runs.started(), 1);
}

#[tokio::test]
async fn a_response_that_is_not_recorded_is_not_buffered() {
    let (server, runs) = start().await;
    for _ in 0..2 {
        assert!(
            read_until(server, "/endless-failure", "first")
                .await
                .contains("502")
        );
    }
    assert_eq!(runs.started(), 2);
}

/// The announced length alone shows that the response cannot be recorded, so none of its body is buffered.
#[tokio::test]
async fn a_response_whose_announced_length_is_over_the_limit_is_not_buffered() {
    let (server, runs) = start().await;
    let read = read_until(server, "/announced", "first").await;
    assert!(read.contains("content-length: 1000000000"), "{read}");
    assert_eq!(
        server.post("/announced", "k", "").await.code(),
        "idempotency_response_not_kept"
    );
    assert_eq!(runs.started(), 1);
}

#[tokio::test]
async fn a_response_that_fails_half_way_is_not_replayed() {
    let (server, runs) = start().await;
    for path in ["/broken", "/panics"] {
        let request = post_bytes(path, path, "").replacen("\r\n", "\r\nconnection: close\r\n", 1);
        let mut stream = server.write(request).await;
        let mut read = Vec::new();
        let _ = stream.read_to_end(&mut read).await;
        let _ = stream.shutdown().await;
        let runs_before = runs.started();
        assert_eq!(
            server.post(path, path, "").await.code(),
            "idempotency_response_not_kept"
        );
        assert_eq!(runs.started(), runs_before, "{path}");
    }
}

#[tokio::test]
async fn a_response_shorter_than_its_content_length_is_not_replayed() {
    let (server, runs) = start().await;
    let unkeyed = request(Method::POST, "/shrunk", [], "");
    assert!(
        server.try_send(unkeyed).await.is_err(),
        "the connection breaks off without a key"
    );
    let keyed = crate::support::post("/shrunk", "k", "");
    assert!(
        server.try_send(keyed).await.is_err(),
        "the connection breaks off with a key"
    );
    assert_eq!(
        server.post("/shrunk", "k", "").await.code(),
        "idempotency_response_not_kept"
    );
    assert_eq!(runs.started(), 2);
}

#[tokio::test]
async fn a_response_with_trailers_reaches_the_client_and_is_not_recorded() {
    let (server, runs) = start().await;
    let mut connection = server.http2().await;
    let mut request = crate::support::post("/trailers", "k", "");
    *request.uri_mut() = "http://localhost/trailers".parse().expect("a URI");
    let answer = connection.send_request(request).await.expect("a response");
    let body = answer.into_body().collect().await.expect("a whole body");
    assert_eq!(body.trailers().expect("trailers")["x-sum"], "7");
    assert_eq!(body.to_bytes(), "abc");
    assert_eq!(
        server.post("/trailers", "k", "").await.code(),
        "idempotency_response_not_kept"
    );
    assert_eq!(runs.started(), 1);
}

#[tokio::test]
async fn an_upgrade_is_not_recorded() {
    let (server, runs) = start().await;
    for run in 1..=2 {
        let stream = server.write(post_bytes("/upgrade", "k", "")).await;
        runs.until_started(run).await;
        drop(stream);
    }
}

/// The record is uncompressed. Each client receives the encoding that it accepts.
#[tokio::test]
async fn a_response_sent_in_gzip_is_replayed_plain_to_a_client_without_gzip() {
    let (server, _) = start().await;
    let send = |encoding| {
        server.send(request(
            Method::POST,
            "/bytes?n=900",
            [(KEY, "k"), ("accept-encoding", encoding)],
            "",
        ))
    };
    let first = send("gzip").await;
    assert_eq!(first.headers["content-encoding"], "gzip");
    let replay = send("identity").await;
    assert!(replay.is_replay() && !replay.headers.contains_key("content-encoding"));
    assert_eq!(replay.body.len(), 900);
}

#[tokio::test(start_paused = true)]
async fn a_record_expires_at_its_ttl_and_reading_does_not_prolong_it() {
    use tower::ServiceExt;

    #[idempotent(scope = global, ttl = "2s")]
    async fn count(State(runs): State<Runs>) -> String {
        runs.count().to_string()
    }
    let router = Router::new()
        .route("/", post(count))
        .layer(Idempotency::in_memory())
        .with_state(Runs::default());
    let send = |at: &'static str, body: &'static str| {
        let router = router.clone();
        async move {
            let answer = router
                .oneshot(request(Method::POST, "/", [(KEY, "k")], body))
                .await
                .expect("infallible");
            let status = answer.status().as_u16();
            let body = answer
                .into_body()
                .collect()
                .await
                .expect("a whole body")
                .to_bytes();
            (at, status, String::from_utf8_lossy(&body).into_owned())
        }
    };
    let run = |at, run: &str| (at, 200, run.to_owned());
    assert_eq!(send("0 s", "").await, run("0 s", "1"));
    tokio::time::advance(Duration::from_millis(1_500)).await;
    assert_eq!(send("1.5 s", "").await, run("1.5 s", "1"));
    // A mismatch does not prolong the record either.
    assert_eq!(send("1.5 s", "other").await.1, 409);
    tokio::time::advance(Duration::from_millis(499)).await;
    assert_eq!(send("1.999 s", "").await, run("1.999 s", "1"));
    tokio::time::advance(Duration::from_millis(1)).await;
    assert_eq!(send("2 s", "other").await, run("2 s", "2"));
    assert_eq!(send("2 s", "other").await, run("2 s", "2"));
}

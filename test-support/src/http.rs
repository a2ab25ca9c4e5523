//! An HTTP server on a free loopback port, and clients that use real sockets.

use std::error::Error;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use axum::Router;
use bytes::Bytes;
use http::header::{AUTHORIZATION, HeaderMap, HeaderName};
use http::{Method, Request, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;

pub const KEY: &str = "idempotency-key";
pub const REPLAYED: &str = "idempotency-replayed";

/// How long a test waits before it fails. A slow machine needs most of this time, and a failing test is
/// better than a hanging test.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// A server that runs until the test ends.
#[derive(Clone, Copy)]
pub struct Server(pub SocketAddr);

/// A response as the client received it.
#[derive(Debug)]
pub struct Answer {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: Bytes,
}

impl Answer {
    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.body).expect("UTF-8")
    }

    pub fn is_replay(&self) -> bool {
        self.headers
            .get(REPLAYED)
            .is_some_and(|value| value == "true")
    }

    /// Whether the response is marked as not yet recorded in the store.
    pub fn is_unrecorded(&self) -> bool {
        self.headers
            .get("idempotency-degraded")
            .is_some_and(|value| value == "unrecorded")
    }

    /// Returns the code of a problem, and checks that the problem is complete.
    pub fn code(&self) -> String {
        assert_eq!(
            self.headers["content-type"], "application/problem+json",
            "{self:?}"
        );
        let problem: serde_json::Value = serde_json::from_slice(&self.body).expect("JSON");
        for member in ["type", "title", "detail"] {
            assert!(
                problem[member]
                    .as_str()
                    .is_some_and(|text| !text.is_empty()),
                "{problem}"
            );
        }
        assert_eq!(problem["status"], self.status.as_u16(), "{problem}");
        problem["code"].as_str().expect("a problem code").to_owned()
    }
}

impl Server {
    pub async fn start(router: Router) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("a bound address");
        tokio::spawn(async move { axum::serve(listener, router).await });
        Self(address)
    }

    pub async fn connect(self) -> TcpStream {
        TcpStream::connect(self.0)
            .await
            .expect("the server listens")
    }

    /// Sends one request on a new connection.
    pub async fn send(self, request: Request<Full<Bytes>>) -> Answer {
        self.try_send(request).await.expect("a response")
    }

    /// Like [`send`](Self::send), but returns an error when there is no complete response.
    pub async fn try_send(
        self,
        request: Request<Full<Bytes>>,
    ) -> Result<Answer, Box<dyn Error + Send + Sync>> {
        tokio::time::timeout(PATIENCE, self.exchange(request)).await?
    }

    async fn exchange(
        self,
        request: Request<Full<Bytes>>,
    ) -> Result<Answer, Box<dyn Error + Send + Sync>> {
        let io = TokioIo::new(TcpStream::connect(self.0).await?);
        let (mut sender, connection) = hyper::client::conn::http1::handshake(io).await?;
        tokio::spawn(connection);
        let (parts, body) = sender.send_request(request).await?.into_parts();
        Ok(Answer {
            status: parts.status,
            headers: parts.headers,
            body: body.collect().await?.to_bytes(),
        })
    }

    /// Sends `POST path` with a key and a body.
    pub async fn post(self, path: &str, key: &str, body: &str) -> Answer {
        self.send(post(path, key, body)).await
    }

    /// Opens a connection, writes these bytes and leaves the connection open.
    pub async fn write(self, bytes: impl AsRef<[u8]>) -> TcpStream {
        let mut stream = self.connect().await;
        stream
            .write_all(bytes.as_ref())
            .await
            .expect("the server reads");
        stream
    }

    /// Writes these bytes, which must contain `Connection: close`, and reads until the server closes.
    pub async fn write_and_read(self, bytes: impl AsRef<[u8]>) -> Vec<u8> {
        read_to_end(self.write(bytes).await).await
    }

    /// Opens an HTTP/2 connection.
    pub async fn http2(self) -> hyper::client::conn::http2::SendRequest<Full<Bytes>> {
        let io = TokioIo::new(self.connect().await);
        let executor = TokioExecutor::new();
        let (sender, connection) = hyper::client::conn::http2::handshake(executor, io)
            .await
            .expect("HTTP/2");
        tokio::spawn(connection);
        sender
    }
}

pub async fn read_to_end(mut stream: TcpStream) -> Vec<u8> {
    let mut answer = Vec::new();
    let read = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut answer)).await;
    read.expect("the connection is closed")
        .expect("the read succeeds");
    answer
}

/// Returns the status of a response that was read from a socket.
pub fn status_of(answer: &[u8]) -> u16 {
    let line = answer
        .get(9..12)
        .and_then(|status| std::str::from_utf8(status).ok());
    line.and_then(|status| status.parse().ok())
        .unwrap_or_else(|| panic!("no status in {:?}", String::from_utf8_lossy(answer)))
}

pub fn request<'a>(
    method: Method,
    path: &str,
    headers: impl IntoIterator<Item = (&'a str, &'a str)>,
    body: &str,
) -> Request<Full<Bytes>> {
    let mut request = Request::builder()
        .method(method)
        .uri(path)
        .header("host", "localhost");
    for (name, value) in headers {
        let name: HeaderName = name.parse().expect("a header name");
        request = request.header(name, value);
    }
    request
        .body(Full::new(Bytes::from(body.to_owned())))
        .expect("a valid request")
}

pub fn post(path: &str, key: &str, body: &str) -> Request<Full<Bytes>> {
    let token = (AUTHORIZATION.as_str(), "Bearer alice");
    request(Method::POST, path, [(KEY, key), token], body)
}

/// Returns the same request as bytes, for tests that close the socket early.
pub fn post_bytes(path: &str, key: &str, body: &str) -> String {
    format!(
        "POST {path} HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer alice\r\n\
         idempotency-key: {key}\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    )
}

/// Sends a request without a connection, for tests that pause the clock.
pub async fn exchange(router: Router, request: Request<Full<Bytes>>) -> Answer {
    let request = request.map(axum::body::Body::new);
    let response = tower::ServiceExt::oneshot(router, request).await;
    let (parts, body) = response.expect("a router does not fail").into_parts();
    Answer {
        status: parts.status,
        headers: parts.headers,
        body: body.collect().await.expect("a body").to_bytes(),
    }
}

/// Counts the runs of a handler, and holds them at a gate until the test opens the gate.
#[derive(Clone, Default)]
pub struct Runs(Arc<Counters>);

struct Counters {
    started: AtomicUsize,
    finished: AtomicUsize,
    gate: Semaphore,
}

impl Default for Counters {
    fn default() -> Self {
        Self {
            started: AtomicUsize::new(0),
            finished: AtomicUsize::new(0),
            gate: Semaphore::new(0),
        }
    }
}

impl Runs {
    /// Counts a run that does not wait at the gate, and returns its number.
    pub fn count(&self) -> usize {
        self.0.finished.fetch_add(1, Ordering::SeqCst);
        self.0.started.fetch_add(1, Ordering::SeqCst) + 1
    }

    /// Counts a run that waits at the gate, and returns its number.
    pub async fn pass(&self) -> usize {
        let run = self.0.started.fetch_add(1, Ordering::SeqCst) + 1;
        self.0
            .gate
            .acquire()
            .await
            .expect("the gate is never closed")
            .forget();
        self.0.finished.fetch_add(1, Ordering::SeqCst);
        run
    }

    /// Lets this many runs pass the gate.
    pub fn open(&self, runs: usize) {
        self.0.gate.add_permits(runs);
    }

    pub fn started(&self) -> usize {
        self.0.started.load(Ordering::SeqCst)
    }

    pub fn finished(&self) -> usize {
        self.0.finished.load(Ordering::SeqCst)
    }

    pub async fn until_started(&self, runs: usize) {
        eventually("a run starts", || self.started() >= runs).await;
    }

    pub async fn until_finished(&self, runs: usize) {
        eventually("a run finishes", || self.finished() >= runs).await;
    }
}

/// Waits until another task has made a condition true.
pub async fn eventually(what: &str, mut is_so: impl FnMut() -> bool) {
    let so = async {
        while !is_so() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    let waited = tokio::time::timeout(PATIENCE, so).await;
    assert!(waited.is_ok(), "timed out while waiting: {what}");
}

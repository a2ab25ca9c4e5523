//! Tests the client on real sockets, against a server with scripted responses.

mod support;

use std::collections::HashMap;
use std::error::Error as _;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use http::{Method, StatusCode};
use idem_client::{
    ClientBuilder, Failure, KeyFuture, KeyStore, Operation, Policy, Problem, Reason,
    ResponseExt as _, codes,
};
use reqwest_middleware::ClientWithMiddleware;
use support::Scripted;

const UNAVAILABLE: &str = "HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\n\r\n";
const CREATED: &str = "HTTP/1.1 201 Created\r\ncontent-length: 2\r\n\r\nok";
const CUT_OFF: &str = "HTTP/1.1 201 Created\r\ncontent-length: 9\r\n\r\nok";
const LOST: &str = "";

/// Retries often and with short pauses.
fn eager() -> Policy {
    Policy::default()
        .waits(Duration::from_millis(1), Duration::from_millis(4))
        .deadline(Duration::from_secs(20))
}

fn client() -> ClientWithMiddleware {
    let client = ClientBuilder::default().policy(eager()).build();
    client.expect("a client")
}

fn failure_of(error: &reqwest_middleware::Error) -> &Failure {
    Failure::of(error).expect("a failure of the client")
}

#[tokio::test]
async fn all_tries_of_one_operation_send_the_same_key() {
    let replies = [LOST, UNAVAILABLE, CUT_OFF, CREATED];
    let server = Scripted::start(replies.repeat(2)).await;
    for _ in 0..2 {
        let sent = client().post(server.url()).body("once").send().await;
        let response = sent.expect("a response");
        assert_eq!(response.status(), StatusCode::CREATED);
        assert_eq!(response.tries(), 4);
        assert!(!response.replayed());
        let key = response.idempotency_key().map(str::to_owned);
        assert_eq!(server.keys().last(), Some(&key));
        assert_eq!(response.url().as_str(), server.url());
        assert_eq!(response.text().await.expect("a body"), "ok");
    }
    let keys = server.keys();
    let (first, second) = keys.split_at(replies.len());
    for keys in [first, second] {
        let key = keys[0].as_deref().expect("a key");
        // A UUID of version 4.
        assert_eq!((key.len(), key.as_bytes()[14]), (36, b'4'));
        let is_same = |other: &Option<String>| other.as_deref() == Some(key);
        assert!(keys.iter().all(is_same), "{keys:?}");
    }
    assert_ne!(first[0], second[0]);
}

#[tokio::test]
async fn every_write_gets_a_key_and_no_read_does() {
    for method in [Method::POST, Method::PUT, Method::PATCH, Method::DELETE] {
        let server = Scripted::start([UNAVAILABLE, CREATED]).await;
        let sent = client().request(method.clone(), server.url()).send().await;
        assert_eq!(sent.expect("a response").status(), StatusCode::CREATED);
        let keys = server.keys();
        assert!(keys[0].is_some() && keys[0] == keys[1], "{method}");
    }
    for method in [Method::GET, Method::HEAD, Method::OPTIONS] {
        let empty = "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n";
        let server = Scripted::start([UNAVAILABLE, empty]).await;
        let sent = client().request(method.clone(), server.url()).send().await;
        let response = sent.expect("a response");
        assert_eq!((response.idempotency_key(), response.tries()), (None, 2));
        assert_eq!(server.keys(), [None, None], "{method}");
    }
    // Nobody knows whether this method may be repeated.
    let server = Scripted::start([UNAVAILABLE, CREATED]).await;
    let method = Method::from_bytes(b"MKCOL").expect("a method");
    let sent = client().request(method, server.url()).send().await;
    assert_eq!(sent.expect("a response").status(), 503);
    assert_eq!(server.keys(), [None]);
}

#[tokio::test]
async fn a_key_set_by_the_caller_is_kept() {
    let server = Scripted::start([UNAVAILABLE, CREATED]).await;
    let request = client().post(server.url());
    let request = request.header(idem_client::headers::IDEMPOTENCY_KEY, "charge-77");
    let response = request.send().await.expect("a response");
    assert_eq!(response.idempotency_key(), Some("charge-77"));
    let key = Some("charge-77".to_owned());
    assert_eq!(server.keys(), [key.clone(), key]);
}

#[tokio::test]
async fn permanent_errors_are_not_retried() {
    let problem = |status: &str, code: &str| {
        let body = format!("{{\"code\":\"{code}\",\"status\":1}}");
        let head = format!("HTTP/1.1 {status}\r\ncontent-type: application/problem+json");
        format!("{head}\r\ncontent-length: {}\r\n\r\n{body}", body.len())
    };
    let empty = |status: &str| format!("HTTP/1.1 {status}\r\ncontent-length: 0\r\n\r\n");
    let final_replies = [
        problem("409 Conflict", codes::KEY_REUSED),
        problem("409 Conflict", codes::OUTCOME_UNKNOWN),
        problem("409 Conflict", codes::RESPONSE_NOT_KEPT),
        problem("400 Bad Request", codes::KEY_INVALID),
        problem("413 Content Too Large", codes::BODY_TOO_LARGE),
        "HTTP/1.1 409 Conflict\r\ncontent-length: 4\r\n\r\nsold".to_owned(),
        empty("400 Bad Request"),
        empty("401 Unauthorized"),
        empty("404 Not Found"),
        empty("422 Unprocessable Content"),
    ];
    for reply in final_replies {
        let server = Scripted::start([&*reply, CREATED]).await;
        let refused = client().post(server.url()).send().await;
        let refused = refused.expect("a response");
        assert!(refused.status().is_client_error());
        let body = refused.bytes().await.expect("a body");
        assert!(reply.as_bytes().ends_with(&body), "the whole body");
        assert_eq!(server.keys().len(), 1, "{reply}");
        if reply.contains("\"code\"") {
            let problem = Problem::from_slice(&body).expect("a problem");
            assert!(problem.code.is_some_and(|code| reply.contains(&code)));
        }
    }
    let temporary = [
        problem("409 Conflict", codes::KEY_IN_FLIGHT),
        problem("423 Locked", codes::KEY_IN_FLIGHT),
        problem("400 Bad Request", codes::BODY_INCOMPLETE),
        problem("409 Conflict", codes::OVERTAKEN),
        empty("408 Request Timeout"),
        empty("425 Too Early"),
        empty("429 Too Many Requests"),
        empty("500 Internal Server Error"),
        empty("504 Gateway Timeout"),
    ];
    for reply in temporary {
        let server = Scripted::start([&*reply, CREATED]).await;
        let created = client().post(server.url()).send().await;
        let created = created.expect("a response");
        assert_eq!(created.status(), StatusCode::CREATED, "{reply}");
        assert_eq!(server.keys().len(), 2, "{reply}");
    }
}

#[tokio::test]
async fn replays_and_receipts_are_recognized() {
    let marked = |marks: &str| format!("HTTP/1.1 201 Created\r\n{marks}content-length: 0\r\n\r\n");
    let replay = "idempotency-replayed: true\r\n";
    let receipt = "idempotency-replayed: true\r\nidempotency-receipt: true\r\n";
    for (marks, expected) in [
        ("", (false, false)),
        ("idempotency-replayed: false\r\n", (false, false)),
        (replay, (true, false)),
        (receipt, (true, true)),
    ] {
        let server = Scripted::start([marked(marks)]).await;
        let sent = client().post(server.url()).send().await;
        let response = sent.expect("a response");
        assert_eq!((response.replayed(), response.is_receipt()), expected);
    }
}

#[tokio::test]
async fn the_last_response_is_returned_at_the_deadline() {
    let told = "HTTP/1.1 503 Service Unavailable\r\nretry-after: 60\r\ncontent-length: 0\r\n\r\n";
    let server = Scripted::start([UNAVAILABLE, told]).await;
    let sent = client().post(server.url()).send().await;
    let response = sent.expect("a response");
    assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(response.tries(), 2);
}

#[tokio::test]
async fn the_error_of_a_lost_operation_contains_its_key() {
    let server = Scripted::start([LOST, CUT_OFF]).await;
    let policy = eager().deadline(Duration::from_millis(200));
    let client = ClientBuilder::default().policy(policy).build();
    let sent = client.expect("a client").post(server.url()).send().await;
    let error = sent.expect_err("the server refuses connections");
    let failure = failure_of(&error);
    assert_eq!(failure.reason(), Reason::Transport);
    assert!(failure.tries() > 2, "{failure}");
    let key = server.keys()[0].clone().expect("a key");
    assert_eq!(failure.key(), Some(&*key));
    assert!(failure.to_string().contains(&key), "{failure}");
    assert!(failure.source().is_some());
}

#[tokio::test]
async fn a_try_that_takes_too_long_is_repeated() {
    let silent = tokio::net::TcpListener::bind("127.0.0.1:0")
        .await
        .expect("a port");
    let url = format!("http://{}/", silent.local_addr().expect("an address"));
    let policy = eager()
        .try_timeout(Duration::from_millis(20))
        .deadline(Duration::from_millis(200));
    let client = ClientBuilder::default().policy(policy).build();
    let sent = client.expect("a client").post(url).send().await;
    let error = sent.expect_err("nobody responds");
    let failure = failure_of(&error);
    assert_eq!(failure.reason(), Reason::TimedOut);
    assert!(failure.tries() > 1 && failure.key().is_some(), "{failure}");
}

#[tokio::test]
async fn a_body_that_cannot_be_sent_twice_is_refused_before_it_is_sent() {
    let server = Scripted::start([CREATED]).await;
    let stream = || {
        let body = http_body_util::Full::new(bytes::Bytes::from("once"));
        reqwest::Body::wrap(body)
    };
    let sent = client().post(server.url()).body(stream()).send().await;
    let error = sent.expect_err("the body is a stream");
    assert_eq!(failure_of(&error).reason(), Reason::BodyNotRepeatable);
    assert!(server.keys().is_empty());
}

const REFUSED: &str = "HTTP/1.1 401 Unauthorized\r\ncontent-length: 0\r\n\r\n";
const INVALID: &str = "HTTP/1.1 422 Unprocessable Content\r\ncontent-length: 0\r\n\r\n";
const TOO_MANY: &str = "HTTP/1.1 429 Too Many Requests\r\ncontent-length: 0\r\n\r\n";
const BUSY: &str =
    "HTTP/1.1 503 Service Unavailable\r\ncontent-length: 27\r\n\r\n{\"code\":\"idempotency_busy\"}";

#[tokio::test]
async fn a_refusal_after_a_try_that_may_have_run_leaves_the_outcome_unknown() {
    let replay =
        "HTTP/1.1 401 Unauthorized\r\nidempotency-replayed: true\r\ncontent-length: 0\r\n\r\n";
    let rows: &[(&[&str], bool)] = &[
        (&[REFUSED], false),
        (&[LOST, REFUSED], true),
        (&[CUT_OFF, INVALID], true),
        (&[UNAVAILABLE, REFUSED], true),
        // These tries had no effect.
        (&[TOO_MANY, REFUSED], false),
        (&[BUSY, REFUSED], false),
        // One try is enough.
        (&[LOST, BUSY, REFUSED], true),
        // The outcome is known.
        (&[LOST, CREATED], false),
        (&[LOST, replay], false),
    ];
    for (replies, is_unknown) in rows {
        let server = Scripted::start(replies.iter().copied()).await;
        let response = client().post(server.url()).body("once").send().await;
        let response = response.expect("a response");
        assert_eq!(response.is_outcome_unknown(), *is_unknown, "{replies:?}");
        assert_eq!(response.tries() as usize, replies.len());
    }
    // A read has no outcome.
    let server = Scripted::start([LOST, REFUSED]).await;
    let response = client().get(server.url()).send().await;
    assert!(!response.expect("a response").is_outcome_unknown());
}

#[tokio::test]
async fn a_failure_at_the_deadline_leaves_the_outcome_unknown() {
    let told =
        |status: &str| format!("HTTP/1.1 {status}\r\nretry-after: 60\r\ncontent-length: 0\r\n\r\n");
    for (status, is_unknown) in [
        ("503 Service Unavailable", true),
        ("408 Request Timeout", true),
        ("429 Too Many Requests", false),
    ] {
        let server = Scripted::start([told(status)]).await;
        let response = client().post(server.url()).send().await;
        let response = response.expect("a response");
        assert_eq!(response.tries(), 1);
        assert_eq!(response.is_outcome_unknown(), is_unknown, "{status}");
    }
}

/// Starts the server after the first try. Until then, its socket refuses connections.
struct StartsLater(Mutex<Option<tokio::net::TcpSocket>>);

#[async_trait::async_trait]
impl reqwest_middleware::Middleware for StartsLater {
    async fn handle(
        &self,
        request: reqwest::Request,
        extensions: &mut http::Extensions,
        next: reqwest_middleware::Next<'_>,
    ) -> reqwest_middleware::Result<reqwest::Response> {
        let result = next.run(request, extensions).await;
        let socket = self.0.lock().expect("no panic").take();
        if let Some(socket) = socket {
            assert!(result.is_err(), "nobody listens yet");
            Scripted::on(socket.listen(1).expect("a bound socket"), [REFUSED]);
        }
        result
    }
}

/// Nothing was sent, so nothing can have run.
#[tokio::test]
async fn a_refused_connection_does_not_leave_the_outcome_unknown() {
    let socket = tokio::net::TcpSocket::new_v4().expect("a socket");
    socket
        .bind("127.0.0.1:0".parse().expect("an address"))
        .expect("a free port");
    let url = format!("http://{}/", socket.local_addr().expect("bound"));
    let client = reqwest_middleware::ClientBuilder::from_client(client());
    let client = client.with(StartsLater(Mutex::new(Some(socket)))).build();
    let response = client.post(url).body("once").send().await;
    let response = response.expect("a response");
    assert_eq!(
        (response.status(), response.tries()),
        (StatusCode::UNAUTHORIZED, 2)
    );
    assert!(!response.is_outcome_unknown());
}

/// Logs in again after a 401, and sends the same request again.
struct LogsIn;

#[async_trait::async_trait]
impl reqwest_middleware::Middleware for LogsIn {
    async fn handle(
        &self,
        request: reqwest::Request,
        extensions: &mut http::Extensions,
        next: reqwest_middleware::Next<'_>,
    ) -> reqwest_middleware::Result<reqwest::Response> {
        let again = request.try_clone().expect("a body in memory");
        let response = next.clone().run(request, extensions).await?;
        if response.status() == StatusCode::UNAUTHORIZED {
            return next.run(again, extensions).await;
        }
        Ok(response)
    }
}

#[tokio::test]
async fn a_login_below_the_retries_sends_the_same_key() {
    let server = Scripted::start([LOST, REFUSED, CREATED]).await;
    let client = reqwest_middleware::ClientBuilder::from_client(client());
    let client = client.with(LogsIn).build();
    let response = client.post(server.url()).body("once").send().await;
    let response = response.expect("a response");
    assert_eq!(
        (response.status(), response.tries()),
        (StatusCode::CREATED, 2)
    );
    let key = response.idempotency_key().map(str::to_owned);
    assert_eq!(server.keys(), vec![key; 3]);
}

fn redirect(status: &str, location: &str) -> String {
    format!("HTTP/1.1 {status}\r\nlocation: {location}\r\ncontent-length: 0\r\n\r\n")
}

/// A client that sends a credential with each request, also with a request that lacks it.
fn client_with_credential() -> ClientWithMiddleware {
    let credential = http::HeaderValue::from_static("Bearer secret");
    let headers = [(http::header::AUTHORIZATION, credential)];
    let http = reqwest::Client::builder().default_headers(headers.into_iter().collect());
    let client = ClientBuilder::new(http).policy(eager()).build();
    client.expect("a client")
}

#[tokio::test]
async fn a_write_with_a_key_that_is_redirected_to_another_origin_fails() {
    for status in [
        "301 Moved Permanently",
        "302 Found",
        "303 See Other",
        "307 Temporary Redirect",
        "308 Permanent Redirect",
    ] {
        let other = Scripted::start([CREATED]).await;
        let away = redirect(status, &other.url());
        let server = Scripted::start([redirect("307 Same Origin", "/v2"), away]).await;
        let request = client_with_credential().post(server.url()).body("once");
        let error = request.send().await.expect_err("no response to the write");
        let failure = failure_of(&error);
        assert_eq!(failure.reason(), Reason::Redirect, "{status}");
        assert_eq!(other.lines(), Vec::<String>::new(), "{status}");
        assert_eq!(server.lines(), ["POST /", "POST /v2"], "{status}");
        // The failure tells the key that the first origin has received.
        let keys = server.keys();
        assert!(failure.key().is_some() && failure.tries() == 1);
        assert_eq!(keys, vec![failure.key().map(str::to_owned); 2]);
    }
}

#[tokio::test]
async fn other_requests_get_the_redirect_to_another_origin_as_their_response() {
    for method in ["GET", "HEAD", "MKCOL"] {
        let other = Scripted::start([CREATED]).await;
        let away = redirect("307 Temporary Redirect", &other.url());
        let server = Scripted::start([redirect("308 Same Origin", "/v2"), away]).await;
        let method = Method::from_bytes(method.as_bytes()).expect("a method");
        let request = client_with_credential().request(method.clone(), server.url());
        let response = request.send().await.expect("a response");
        assert_eq!(response.status(), StatusCode::TEMPORARY_REDIRECT);
        assert_eq!(response.headers()["location"], other.url());
        assert_eq!(response.url().path(), "/v2");
        assert_eq!((response.idempotency_key(), response.tries()), (None, 1));
        assert_eq!(other.lines(), Vec::<String>::new(), "{method}");
        let credential = Some("Bearer secret".to_owned());
        assert_eq!(
            server.values("authorization"),
            [credential.clone(), credential]
        );
    }
}

#[tokio::test]
async fn a_redirect_at_the_same_origin_keeps_the_key_and_is_retried() {
    let replies = [
        redirect("307 Temporary Redirect", "/v2"),
        UNAVAILABLE.to_owned(),
        redirect("307 Temporary Redirect", "/v2"),
        CREATED.to_owned(),
    ];
    let server = Scripted::start(replies).await;
    let response = client().post(server.url()).body("once").send().await;
    assert_eq!(response.expect("a response").tries(), 2);
    assert_eq!(server.lines(), ["POST /", "POST /v2", "POST /", "POST /v2"]);
    let keys = server.keys();
    assert!(keys.iter().all(|key| key.is_some() && *key == keys[0]));
}

#[tokio::test]
async fn a_redirect_to_a_result_is_read_and_the_write_is_retried_with_its_key() {
    let replies = [
        redirect("303 See Other", "/orders/1"),
        LOST.to_owned(),
        redirect("303 See Other", "/orders/1"),
        "HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\ntea".to_owned(),
    ];
    let server = Scripted::start(replies).await;
    let response = client().post(server.url()).body("once").send().await;
    let body = response.expect("a response").text().await;
    assert_eq!(body.expect("a body"), "tea");
    let lines = ["POST /", "GET /orders/1", "POST /", "GET /orders/1"];
    assert_eq!(server.lines(), lines);
    let keys = server.keys();
    assert!(keys[0].is_some() && keys[0] == keys[2]);
    assert_eq!((&keys[1], &keys[3]), (&None, &None));
}

#[tokio::test]
async fn a_circle_of_redirects_ends() {
    let circle = redirect("307 Temporary Redirect", "/");
    let server = Scripted::start(vec![circle; 12]).await;
    let sent = client().post(server.url()).send().await;
    let error = sent.expect_err("a circle");
    assert_eq!(failure_of(&error).reason(), Reason::Redirect);
    assert_eq!(server.keys().len(), 11);
}

/// What a file or a table would be in a real client.
#[derive(Clone, Default)]
struct Kept(Arc<Mutex<HashMap<String, String>>>);

impl KeyStore for Kept {
    fn key<'a>(&'a self, operation: &'a str, fresh: String) -> KeyFuture<'a> {
        Box::pin(async move {
            if operation == "broken" {
                return Err("the disk is full".into());
            }
            let mut kept = self.0.lock().expect("no panic");
            Ok(kept.entry(operation.to_owned()).or_insert(fresh).clone())
        })
    }
}

#[tokio::test]
async fn a_client_that_starts_again_sends_the_key_of_the_operation() {
    let kept = Kept::default();
    let start = || {
        let policy = eager().deadline(Duration::from_millis(50));
        let client = ClientBuilder::default().policy(policy);
        client.key_store(kept.clone()).build().expect("a client")
    };
    let (server, lost) = (
        Scripted::start([CREATED, CREATED]).await,
        Scripted::start([LOST]).await,
    );
    let pay_at = |url: String, client: ClientWithMiddleware, name: &'static str| {
        let request = client.post(url);
        request.with_extension(Operation::named(name)).send()
    };
    let pay = |client, name| pay_at(server.url(), client, name);
    // The first client never learns what became of its operation.
    pay_at(lost.url(), start(), "invoice 17")
        .await
        .expect_err("no response");
    let response = pay(start(), "invoice 17").await.expect("a response");
    let key = kept.0.lock().expect("no panic")["invoice 17"].clone();
    assert_eq!(response.idempotency_key(), Some(&*key));
    pay(start(), "invoice 18").await.expect("a response");
    let keys = server.keys();
    assert_eq!(lost.keys(), [Some(key.clone())]);
    assert_eq!(keys[0].as_deref(), Some(&*key));
    assert_ne!(keys[1].as_deref(), Some(&*key));

    // An earlier call sent the key of the first operation only.
    let refusing = Scripted::start([REFUSED, REFUSED]).await;
    for (name, is_unknown) in [("invoice 17", true), ("invoice 19", false)] {
        let response = pay_at(refusing.url(), start(), name).await;
        let response = response.expect("a response");
        assert_eq!(response.is_outcome_unknown(), is_unknown, "{name}");
    }

    let error = pay(start(), "broken").await.expect_err("no key");
    assert_eq!(failure_of(&error).reason(), Reason::KeyStore);
    let error = pay(client(), "invoice 17").await.expect_err("no store");
    assert_eq!(failure_of(&error).reason(), Reason::NoKeyStore);
    assert_eq!(server.keys().len(), keys.len(), "nothing was sent");
}

#[tokio::test]
async fn the_headers_of_another_dialect_can_be_set() {
    let replay = "HTTP/1.1 200 OK\r\nidempotent-replayed: true\r\ncontent-length: 0\r\n\r\n";
    let server = Scripted::start([replay]).await;
    let policy = eager()
        .key_header(http::HeaderName::from_static("x-request-id"))
        .replay_header(http::HeaderName::from_static("idempotent-replayed"))
        .quote_keys();
    let client = ClientBuilder::default().policy(policy).build();
    let sent = client.expect("a client").post(server.url()).send().await;
    let response = sent.expect("a response");
    assert!(response.replayed());
    let key = response.idempotency_key().expect("a key");
    assert!(key.starts_with('"') && key.ends_with('"'), "{key}");
    assert_eq!(server.values("x-request-id"), [Some(key.to_owned())]);
    assert_eq!(server.keys(), [None]);
}

//! Tests the tower layer, with a paused clock and an inner service that responds by script.
#![cfg(feature = "tower")]

use std::convert::Infallible;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full};
use idem_client::{Failure, Policy, Reason, ReplyBody, ResponseExt as _, RetryLayer, codes};
use tokio::time::Instant;
use tower::{Service, ServiceBuilder, ServiceExt as _};

type Reply = Result<Response<Full<Bytes>>, io::ErrorKind>;

/// Responds by script, and notes the key of each request.
#[derive(Clone)]
struct Script {
    replies: Arc<Mutex<std::vec::IntoIter<Reply>>>,
    keys: Arc<Mutex<Vec<Option<HeaderValue>>>>,
}

impl Script {
    fn new(replies: Vec<Reply>) -> Self {
        Self {
            replies: Arc::new(Mutex::new(replies.into_iter())),
            keys: Arc::default(),
        }
    }

    async fn send(&self, method: Method) -> Result<Response<ReplyBody<Full<Bytes>>>, Failure> {
        let script = self.clone();
        let service = tower::service_fn(move |request: Request<Full<Bytes>>| {
            let key = request.headers().get("idempotency-key").cloned();
            script.keys.lock().expect("no panic").push(key);
            let reply = script.replies.lock().expect("no panic").next();
            async move {
                match reply {
                    Some(reply) => reply.map_err(io::Error::from),
                    None => std::future::pending().await,
                }
            }
        });
        let layer = RetryLayer::new(Policy::default());
        let client = ServiceBuilder::new().layer(layer).service(service);
        let request = Request::builder().method(method).body(Full::from("once"));
        client.oneshot(request.expect("a request")).await
    }

    fn keys(&self) -> Vec<Option<HeaderValue>> {
        self.keys.lock().expect("no panic").clone()
    }
}

fn respond(status: u16) -> http::response::Builder {
    Response::builder().status(status)
}

#[expect(clippy::unnecessary_wraps, reason = "an element of a script")]
fn empty(status: u16) -> Reply {
    Ok(respond(status).body(Full::default()).expect("a response"))
}

#[tokio::test(start_paused = true)]
async fn all_tries_of_one_operation_send_the_same_key() {
    let body = format!("{{\"code\":\"{}\"}}", codes::KEY_IN_FLIGHT);
    let in_flight = respond(409).body(Full::from(body)).expect("a response");
    let script = Script::new(vec![
        Err(io::ErrorKind::ConnectionReset),
        Ok(in_flight),
        empty(503),
        empty(408),
        empty(201),
    ]);
    let response = script.send(Method::POST).await.expect("a response");
    assert_eq!(response.status(), StatusCode::CREATED);
    assert_eq!(response.tries(), 5);
    let keys = script.keys();
    assert!(keys.iter().all(|key| key.is_some() && *key == keys[0]));
    let key = keys[0].as_ref().and_then(|key| key.to_str().ok());
    assert_eq!(response.idempotency_key(), key);
}

#[tokio::test(start_paused = true)]
async fn permanent_errors_are_not_retried() {
    let body = format!("{{\"code\":\"{}\"}}", codes::KEY_REUSED);
    let reused = respond(409)
        .body(Full::from(body.clone()))
        .expect("a response");
    let script = Script::new(vec![Ok(reused), empty(201)]);
    let response = script.send(Method::POST).await.expect("a response");
    assert_eq!(response.status(), StatusCode::CONFLICT);
    let whole = response.into_body().collect().await.expect("a body");
    assert_eq!(whole.to_bytes(), body);
    assert_eq!(script.keys().len(), 1);

    let method = Method::from_bytes(b"MKCOL").expect("a method");
    let script = Script::new(vec![empty(503), empty(201)]);
    let response = script.send(method).await.expect("a response");
    assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(script.keys(), [None]);
}

#[tokio::test(start_paused = true)]
async fn a_refusal_after_a_try_that_may_have_run_leaves_the_outcome_unknown() {
    let lost = || Err(io::ErrorKind::ConnectionReset);
    for (replies, is_unknown) in [
        (vec![empty(401)], false),
        (vec![lost(), empty(401)], true),
        (vec![empty(503), empty(401)], true),
        (vec![empty(429), empty(401)], false),
        (vec![lost(), empty(201)], false),
    ] {
        let tries = replies.len();
        let script = Script::new(replies);
        let response = script.send(Method::POST).await.expect("a response");
        assert_eq!(response.tries() as usize, tries);
        let status = response.status();
        assert_eq!(
            response.is_outcome_unknown(),
            is_unknown,
            "{status} {tries}"
        );
    }
    let script = Script::new(vec![lost(), empty(401)]);
    let read = script.send(Method::GET).await.expect("a response");
    assert!(!read.is_outcome_unknown(), "a read has no outcome");
}

#[tokio::test(start_paused = true)]
async fn the_client_waits_as_long_as_retry_after_says() {
    let date = httpdate::fmt_http_date(SystemTime::now() + Duration::from_secs(43));
    for retry_after in ["43", &date] {
        let limited = respond(429)
            .header("retry-after", retry_after)
            .body(Full::default());
        let script = Script::new(vec![limited.map_err(|_| io::ErrorKind::Other), empty(201)]);
        let before = Instant::now();
        script.send(Method::POST).await.expect("a response");
        let waited = before.elapsed();
        // A date has whole seconds. Half a second is the limit of the first random wait.
        assert!(waited >= Duration::from_secs(41), "{waited:?}");
        assert!(waited <= Duration::from_millis(43_600), "{waited:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn an_operation_ends_at_its_deadline() {
    let script = Script::new(Vec::new());
    let before = Instant::now();
    let failure = script.send(Method::POST).await.expect_err("no response");
    assert_eq!(failure.reason(), Reason::TimedOut);
    let key = script.keys()[0].clone().expect("a key");
    assert_eq!(failure.key(), key.to_str().ok());
    assert!((4..=5).contains(&failure.tries()), "{failure}");
    assert!(before.elapsed() <= Duration::from_secs(120));

    // The last response is better than an error.
    let script = Script::new((0..100).map(|_| empty(503)).collect());
    let response = script.send(Method::POST).await.expect("a response");
    assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert!(response.tries() > 5 && before.elapsed() <= Duration::from_secs(240));
}

/// A body that fails half way.
struct Broken(bool);

impl http_body::Body for Broken {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<io::Result<http_body::Frame<Bytes>>>> {
        let is_first = std::mem::replace(&mut self.0, false);
        let half = || http_body::Frame::data(Bytes::from_static(b"ha"));
        Poll::Ready(Some(if is_first {
            Ok(half())
        } else {
            Err(io::ErrorKind::ConnectionReset.into())
        }))
    }
}

#[tokio::test(start_paused = true)]
async fn a_response_to_a_write_that_breaks_off_is_lost() {
    let service = tower::service_fn(|_: Request<Full<Bytes>>| async {
        Ok::<_, Infallible>(Response::new(Broken(true)))
    });
    let layer = RetryLayer::new(Policy::default().deadline(Duration::from_secs(5)));
    let mut client = ServiceBuilder::new().layer(layer).service(service);
    let mut send = async |method: Method| {
        let request = Request::builder().method(method).body(Full::default());
        let client = client.ready().await.expect("ready");
        client.call(request.expect("a request")).await
    };
    let failure = send(Method::PUT).await.err().expect("no whole response");
    assert_eq!(failure.reason(), Reason::Transport);
    assert!(failure.tries() > 2);
    // The body of a read is passed on while it arrives.
    let response = send(Method::GET).await.expect("a head");
    assert_eq!(response.tries(), 1);
    assert!(response.into_body().collect().await.is_err());
}

/// Responds with 503, and is not ready for a second request.
#[derive(Clone)]
struct BusyAfterOne {
    is_ready: bool,
}

impl Service<Request<Full<Bytes>>> for BusyAfterOne {
    type Response = Response<Full<Bytes>>;
    type Error = Infallible;
    type Future = std::future::Ready<Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        if self.is_ready {
            Poll::Ready(Ok(()))
        } else {
            Poll::Pending
        }
    }

    fn call(&mut self, _: Request<Full<Bytes>>) -> Self::Future {
        self.is_ready = false;
        let unavailable = respond(503).body(Full::from("busy"));
        std::future::ready(Ok(unavailable.expect("a response")))
    }
}

#[tokio::test(start_paused = true)]
async fn an_operation_whose_service_is_not_ready_again_ends_at_its_deadline() {
    let layer = RetryLayer::new(Policy::default().deadline(Duration::from_secs(5)));
    let client = ServiceBuilder::new().layer(layer);
    let client = client.service(BusyAfterOne { is_ready: true });
    let request = Request::post("/").body(Full::from("once"));
    let before = Instant::now();
    let sent = client.oneshot(request.expect("a request"));
    let ended = tokio::time::timeout(Duration::from_secs(60), sent).await;
    let response = ended.expect("an end").expect("the last response");
    assert!(before.elapsed() <= Duration::from_millis(5_010));
    assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert!(response.idempotency_key().is_some() && response.tries() == 1);
    let whole = response.into_body().collect().await.expect("a body");
    assert_eq!(whole.to_bytes(), "busy");
}

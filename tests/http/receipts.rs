//! Tests endpoints that record only the status and the headers of a response.

use axum::Router;
use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use axum_idem::store::{Entry, MemoryStore};
use axum_idem::{Idempotency, Scope, idempotent};
use bytes::Bytes;
use futures_util::stream;

use crate::support::{Runs, Server};

const SECRET: &str = "sk_live_shown_once";

#[idempotent(scope = global, record_body = none)]
async fn issue(State(runs): State<Runs>) -> impl IntoResponse {
    runs.count();
    let headers = [
        (header::LOCATION, "/keys/1"),
        (header::ETAG, "\"v1\""),
        (header::CONTENT_LANGUAGE, "en"),
    ];
    (StatusCode::CREATED, headers, SECRET)
}

/// A body of unknown length.
#[idempotent(scope = global, record_body = none)]
async fn stream_it(State(runs): State<Runs>) -> Response {
    runs.count();
    let parts =
        ["one ", "two"].map(|part| Ok::<_, std::io::Error>(Bytes::from_static(part.as_bytes())));
    let mut response = Response::new(Body::from_stream(stream::iter(parts)));
    let events = "text/event-stream".parse().expect("a value");
    response.headers_mut().insert(header::CONTENT_TYPE, events);
    response
}

/// A rejection by the body extractor is recorded, and its text names the wrong input.
#[idempotent(scope = global, record_body = none, record_rejections)]
async fn parse(State(runs): State<Runs>, body: String) -> String {
    runs.count();
    body
}

async fn start() -> (Server, Runs, Idempotency) {
    let runs = Runs::default();
    let idem = Idempotency::builder().store(MemoryStore::default()).build();
    let router = Router::new()
        .route("/issue", post(issue))
        .route("/stream", post(stream_it))
        .route("/parse", post(parse))
        .layer(idem.clone())
        .with_state(runs.clone());
    (Server::start(router).await, runs, idem)
}

async fn recorded(idem: &Idempotency, key: &str) -> (StatusCode, HeaderMap, Bytes) {
    let id = idem.record_id(&Scope::new(), key);
    match idem.look_up(id).await {
        Ok(Some(Entry::Recorded { record, .. })) => {
            let bytes = record.as_bytes();
            let secret = SECRET.as_bytes();
            assert!(!bytes.windows(secret.len()).any(|window| window == secret));
            (record.status(), record.headers(), record.body())
        }
        other => panic!("there is no record: {other:?}"),
    }
}

#[tokio::test]
async fn a_body_that_is_not_recorded_never_reaches_the_store() {
    let (server, runs, idem) = start().await;
    let first = server.post("/issue", "k", "").await;
    assert_eq!((first.status, first.text()), (StatusCode::CREATED, SECRET));
    assert_eq!(first.headers[header::ETAG], "\"v1\"");
    assert!(!first.headers.contains_key("idempotency-receipt"));
    let (status, headers, body) = recorded(&idem, "k").await;
    assert_eq!(
        (status, headers.len(), body.len()),
        (StatusCode::CREATED, 2, 0)
    );
    for _ in 0..2 {
        let again = server.post("/issue", "k", "").await;
        assert!(again.is_replay());
        assert_eq!((again.status, again.text()), (StatusCode::CREATED, ""));
        assert_eq!(again.headers["idempotency-receipt"], "true");
        assert_eq!(again.headers[header::LOCATION], "/keys/1");
        for name in [header::CONTENT_TYPE, header::CONTENT_LANGUAGE, header::ETAG] {
            assert!(!again.headers.contains_key(&name), "{name}");
        }
    }
    assert_eq!(runs.started(), 1);
}

#[tokio::test]
async fn a_stream_has_a_receipt_too() {
    let (server, runs, _) = start().await;
    let first = server.post("/stream", "k", "").await;
    assert_eq!((first.status, first.text()), (StatusCode::OK, "one two"));
    let again = server.post("/stream", "k", "").await;
    assert!(again.is_replay());
    assert_eq!((again.status, again.text()), (StatusCode::OK, ""));
    assert_eq!(again.headers["idempotency-receipt"], "true");
    assert_eq!(runs.started(), 1);
}

#[tokio::test]
async fn a_recorded_rejection_has_a_receipt_too() {
    let (server, runs, idem) = start().await;
    let not_text = b"POST /parse HTTP/1.1\r\nhost: x\r\nidempotency-key: k\r\ncontent-length: 1\r\nconnection: close\r\n\r\n\xff";
    for expected in [false, true] {
        let reply = server.write_and_read(&not_text[..]).await;
        let reply = String::from_utf8_lossy(&reply);
        assert!(reply.starts_with("HTTP/1.1 400"), "{reply}");
        assert_eq!(
            reply.contains("idempotency-receipt: true"),
            expected,
            "{reply}"
        );
    }
    assert_eq!(recorded(&idem, "k").await.2.len(), 0);
    assert_eq!(runs.started(), 0);
}

#[idempotent(scope = global)]
async fn card(State(runs): State<Runs>) -> impl IntoResponse {
    let body = format!("card {} {SECRET}", runs.count());
    (StatusCode::CREATED, [("x-token", SECRET)], body)
}

async fn redacting<F>(redact: F) -> (Server, Runs, Idempotency)
where
    F: Fn(&str, axum::http::Response<Bytes>) -> axum::http::Response<Bytes> + Send + Sync + 'static,
{
    let runs = Runs::default();
    let idem = Idempotency::builder().redact(redact).build();
    let router = Router::new()
        .route("/card", post(card))
        .route("/issue", post(issue))
        .layer(idem.clone())
        .with_state(runs.clone());
    (Server::start(router).await, runs, idem)
}

#[tokio::test]
async fn redact_changes_the_record_and_not_the_first_response() {
    let (server, runs, idem) = redacting(|endpoint, mut response| {
        assert!(endpoint.ends_with("receipts::card") || endpoint.ends_with("receipts::issue"));
        response.headers_mut().remove("x-token");
        *response.status_mut() = StatusCode::OK;
        let body = String::from_utf8_lossy(response.body()).replace(SECRET, "***");
        *response.body_mut() = body.into();
        response
    })
    .await;
    let first = server.post("/card", "k", "").await;
    assert_eq!(first.text(), format!("card 1 {SECRET}"));
    assert_eq!(first.headers["x-token"], SECRET);
    let (status, headers, body) = recorded(&idem, "k").await;
    assert_eq!(
        (status, &body[..]),
        (StatusCode::CREATED, &b"card 1 ***"[..])
    );
    assert!(!headers.contains_key("x-token"));
    let again = server.post("/card", "k", "").await;
    assert!(again.is_replay());
    assert_eq!(
        (again.status, again.text()),
        (StatusCode::CREATED, "card 1 ***")
    );
    assert_eq!(server.post("/issue", "i", "").await.text(), SECRET);
    assert_eq!(
        server.post("/issue", "i", "").await.headers["idempotency-receipt"],
        "true"
    );
    assert_eq!(runs.started(), 2);
}

#[tokio::test]
async fn a_response_is_not_recorded_when_redact_panics() {
    let (server, runs, _) = redacting(|_, _| panic!("a mistake in redact")).await;
    let first = server.post("/card", "k", "").await;
    assert_eq!(
        (first.status, first.text()),
        (StatusCode::CREATED, &*format!("card 1 {SECRET}"))
    );
    let again = server.post("/card", "k", "").await;
    assert_eq!(again.code(), "idempotency_response_not_kept");
    assert_eq!(runs.started(), 1);
}

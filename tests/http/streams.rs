//! A response whose body does not end, or takes its time.

use std::convert::Infallible;
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use axum_idem::{Idempotency, idempotent};
use futures_util::stream;
use tokio::io::AsyncReadExt;
use tokio::time::{Instant, sleep};

use crate::support::{self, PATIENCE, Runs, Server, post_bytes};

/// One line for each permit of the gate, and no end.
#[idempotent(scope = global)]
async fn endless(State(runs): State<Runs>) -> Response {
    let lines = stream::unfold(runs, |runs| async {
        let line = runs.pass().await;
        Some((Ok::<_, Infallible>(format!("{{\"line\":{line}}}\n")), runs))
    });
    let ndjson = [(header::CONTENT_TYPE, "application/x-ndjson")];
    (ndjson, Body::from_stream(lines)).into_response()
}

/// Sends each of three pieces after this many milliseconds.
#[idempotent(scope = global)]
async fn slow(pause: String) -> Response {
    let pause = Duration::from_millis(pause.parse().expect("a number"));
    let pieces = stream::unfold(0, move |piece| async move {
        sleep(pause).await;
        (piece < 3).then_some((Ok::<_, Infallible>("abc"), piece + 1))
    });
    Body::from_stream(pieces).into_response()
}

/// As `slow`, and says how long the body is.
#[idempotent(scope = global)]
async fn announced(pause: String) -> Response {
    let pause = Duration::from_millis(pause.parse().expect("a number"));
    let pieces = stream::unfold(0, move |piece| async move {
        sleep(pause).await;
        (piece < 3).then_some((Ok::<_, Infallible>(Bytes::from("abc")), piece + 1))
    });
    ([(header::CONTENT_LENGTH, "9")], Body::from_stream(pieces)).into_response()
}

fn start(response_timeout: Duration) -> (Router, Runs, Idempotency) {
    let runs = Runs::default();
    let idem = Idempotency::builder()
        .response_timeout(response_timeout)
        .max_run(Duration::from_secs(300))
        .build();
    let router = Router::new()
        .route("/endless", post(endless))
        .route("/slow", post(slow))
        .route("/announced", post(announced))
        .layer(idem.clone())
        .with_state(runs.clone());
    (router, runs, idem)
}

const NOT_KEPT: &str = "idempotency_response_not_kept";

#[tokio::test]
async fn an_endless_response_reaches_its_client_while_it_goes_on() {
    let (router, runs, idem) = start(Duration::from_millis(50));
    let server = Server::start(router).await;
    runs.open(2);
    let mut stream = server.write(post_bytes("/endless", "k", "")).await;
    let mut read = Vec::new();
    let mut until = async |text: &str| {
        while !String::from_utf8_lossy(&read).contains(text) {
            let some = tokio::time::timeout(PATIENCE, stream.read_buf(&mut read)).await;
            assert!(some.expect("it is sent").expect("read") > 0, "{text}");
        }
    };
    until("{\"line\":1}").await;
    until("{\"line\":2}").await;
    assert_eq!(idem.running(), 0);
    runs.open(1);
    until("{\"line\":3}").await;
    let retry = server.post("/endless", "k", "").await;
    assert_eq!(
        (retry.status.as_u16(), retry.code().as_str()),
        (409, NOT_KEPT)
    );
}

#[tokio::test]
async fn an_endless_response_is_not_read_for_ever_when_its_client_has_left() {
    let (router, runs, idem) = start(Duration::from_millis(50));
    let server = Server::start(router).await;
    let stream = server.write(post_bytes("/endless", "k", "")).await;
    runs.until_started(1).await;
    drop(stream);
    assert_eq!(idem.drain(PATIENCE).await, 0);
    let retry = server.post("/endless", "k", "").await;
    assert_eq!(
        (retry.status.as_u16(), retry.code().as_str()),
        (409, NOT_KEPT)
    );
}

#[tokio::test(start_paused = true)]
async fn a_slow_response_is_recorded_within_its_time_and_passed_on_after_it() {
    let second = Duration::from_secs(1);
    let (router, ..) = start(second);
    for (path, millis, is_recorded) in [
        ("/slow", "200", true),
        ("/slow", "400", false),
        ("/announced", "400", true),
        ("/announced", "70000", true),
        ("/announced", "80000", false),
    ] {
        let key = format!("{path}{millis}");
        let post = || support::exchange(router.clone(), support::post(path, &key, millis));
        let response = post().await;
        assert_eq!(response.text(), "abcabcabc", "{key}");
        let retry = post().await;
        assert_eq!(retry.is_replay(), is_recorded, "{key}: {retry:?}");
        assert!(is_recorded || retry.code() == NOT_KEPT, "{key}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_response_has_thirty_seconds_by_default() {
    let runs = Runs::default();
    let router = Router::new()
        .route("/endless", post(endless))
        .layer(Idempotency::in_memory())
        .with_state(runs.clone());
    let begun = Instant::now();
    let request = support::post("/endless", "k", "").map(Body::new);
    let response = tower::ServiceExt::oneshot(router, request).await;
    assert_eq!(response.expect("a response").status(), 200);
    assert_eq!(begun.elapsed().as_secs(), 30);
}

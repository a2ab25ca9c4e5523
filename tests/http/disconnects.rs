//! Tests that a client that disconnects neither loses nor repeats work.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::extract::{FromRequestParts, Request, State};
use axum::http::StatusCode;
use axum::http::request::Parts;
use axum::middleware::{Next, from_fn};
use axum::routing::post;
use axum_idem::{Idempotency, idempotent};
use tokio::io::AsyncWriteExt;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tower_http::timeout::TimeoutLayer;

use crate::support::{Runs, Server, eventually, post as keyed, post_bytes, read_to_end};

#[idempotent(scope = token)]
async fn slow(State(runs): State<Runs>, body: Bytes) -> (StatusCode, String) {
    let run = runs.pass().await;
    (StatusCode::CREATED, format!("{run}: {} bytes", body.len()))
}

fn router(runs: &Runs, idem: Idempotency) -> Router {
    Router::new()
        .route("/slow", post(slow))
        .layer(idem)
        .with_state(runs.clone())
}

#[derive(Clone)]
struct Named {
    runs: Runs,
    idem: Idempotency,
}

/// Without an `Idempotency` layer above, the handler continues alone.
#[idempotent(scope = token, runtime = named.idem)]
async fn slow_without_layer(State(named): State<Named>) -> (StatusCode, String) {
    (StatusCode::CREATED, named.runs.pass().await.to_string())
}

#[tokio::test]
async fn a_disconnect_without_a_layer_neither_stops_nor_repeats_the_run() {
    let (runs, idem) = (Runs::default(), Idempotency::in_memory());
    let named = Named {
        runs: runs.clone(),
        idem: idem.clone(),
    };
    let drops = Drops::default();
    let router = Router::new().route("/", post(slow_without_layer));
    let server = Server::start(drops.count(router.with_state(named))).await;
    let stream = server.write(post_bytes("/", "k", "")).await;
    runs.until_started(1).await;
    drop(stream);
    drops.until_one().await;
    assert_eq!(
        server.post("/", "k", "").await.code(),
        "idempotency_key_in_flight"
    );
    runs.open(1);
    runs.until_finished(1).await;
    idem.drain(Duration::from_secs(30)).await;
    assert!(server.post("/", "k", "").await.is_replay());
    assert_eq!(runs.started(), 1);
}

/// Counts the requests that the server dropped before they had a response.
#[derive(Clone, Default)]
struct Drops(Arc<AtomicUsize>);

struct Unanswered(Option<Drops>);

impl Unanswered {
    fn answered(mut self) {
        self.0 = None;
    }
}

impl Drop for Unanswered {
    fn drop(&mut self) {
        if let Some(Drops(count)) = &self.0 {
            count.fetch_add(1, Ordering::SeqCst);
        }
    }
}

impl Drops {
    fn count(&self, router: Router) -> Router {
        let drops = self.clone();
        router.layer(from_fn(move |request: Request, next: Next| {
            let unanswered = Unanswered(Some(drops.clone()));
            async move {
                let response = next.run(request).await;
                unanswered.answered();
                response
            }
        }))
    }

    async fn until_one(&self) {
        eventually("the server drops the request", || {
            self.0.load(Ordering::SeqCst) == 1
        })
        .await;
    }
}

async fn start() -> (Server, Runs, Idempotency) {
    let (runs, idem) = (Runs::default(), Idempotency::in_memory());
    (Server::start(router(&runs, idem.clone())).await, runs, idem)
}

#[tokio::test(flavor = "multi_thread")]
async fn runs_finish_after_their_connections_close_and_retries_are_replayed() {
    let (server, runs, idem) = start().await;
    for key in 0..40 {
        let stream = server
            .write(post_bytes("/slow", &key.to_string(), "abc"))
            .await;
        runs.until_started(key + 1).await;
        drop(stream);
    }
    runs.open(40);
    runs.until_finished(40).await;
    assert_eq!(idem.drain(Duration::from_secs(30)).await, 0);
    for key in 0..40 {
        let retry = server.post("/slow", &key.to_string(), "abc").await;
        assert_eq!(retry.status, 201);
        assert!(retry.is_replay() && retry.text().ends_with(": 3 bytes"));
    }
    assert_eq!(runs.started(), 40);
}

#[tokio::test]
async fn a_retry_during_a_background_run_gets_409() {
    let (server, runs, _) = start().await;
    let stream = server.write(post_bytes("/slow", "k", "")).await;
    runs.until_started(1).await;
    drop(stream);
    assert_eq!(
        server.post("/slow", "k", "").await.code(),
        "idempotency_key_in_flight"
    );
    runs.open(1);
    runs.until_finished(1).await;
    loop {
        let retry = server.post("/slow", "k", "").await;
        if retry.status == 201 {
            assert!(retry.is_replay());
            break;
        }
    }
    assert_eq!(runs.started(), 1);
}

#[tokio::test]
async fn a_client_that_half_closes_its_connection_does_not_stop_the_run() {
    let (runs, idem, drops) = (Runs::default(), Idempotency::in_memory(), Drops::default());
    let server = Server::start(drops.count(router(&runs, idem.clone()))).await;
    let mut stream = server.write(post_bytes("/slow", "k", "")).await;
    runs.until_started(1).await;
    stream
        .shutdown()
        .await
        .expect("the socket can be shut down");
    // hyper treats a half-closed connection as a client that has left.
    drops.until_one().await;
    runs.open(1);
    runs.until_finished(1).await;
    read_to_end(stream).await;
    idem.drain(Duration::from_secs(30)).await;
    assert!(server.post("/slow", "k", "").await.is_replay());
    assert_eq!(runs.started(), 1);
}

#[tokio::test]
async fn an_http_2_reset_does_not_stop_the_run() {
    let (runs, idem, drops) = (Runs::default(), Idempotency::in_memory(), Drops::default());
    let server = Server::start(drops.count(router(&runs, idem.clone()))).await;
    let mut connection = server.http2().await;
    let mut request = keyed("/slow", "k", "");
    *request.uri_mut() = "http://localhost/slow".parse().expect("a URI");
    let answer = tokio::spawn(connection.send_request(request));
    runs.until_started(1).await;
    // Dropping the response future resets the stream. The connection stays open.
    answer.abort();
    assert!(answer.await.is_err());
    drops.until_one().await;
    runs.open(1);
    runs.until_finished(1).await;
    idem.drain(Duration::from_secs(30)).await;
    assert!(server.post("/slow", "k", "").await.is_replay());
    assert!(!connection.is_closed());
    assert_eq!(runs.started(), 1);
}

#[tokio::test]
async fn an_outer_timeout_does_not_stop_the_run_and_is_not_recorded() {
    let (runs, idem) = (Runs::default(), Idempotency::in_memory());
    let timeout =
        TimeoutLayer::with_status_code(StatusCode::REQUEST_TIMEOUT, Duration::from_millis(50));
    let server = Server::start(router(&runs, idem.clone()).layer(timeout)).await;
    assert_eq!(server.post("/slow", "k", "").await.status, 408);
    assert_eq!(
        server.post("/slow", "k", "").await.code(),
        "idempotency_key_in_flight"
    );
    runs.open(1);
    idem.drain(Duration::from_secs(30)).await;
    let retry = server.post("/slow", "k", "").await;
    assert!(retry.status == 201 && retry.is_replay());
    assert_eq!(runs.started(), 1);
}

/// The handler holds this permit while it runs. The extractor takes the permit without waiting.
struct Permit(#[expect(dead_code, reason = "held for its drop")] OwnedSemaphorePermit);

#[derive(Clone)]
struct Guarded {
    runs: Runs,
    permits: Arc<Semaphore>,
}

impl FromRequestParts<Guarded> for Permit {
    type Rejection = StatusCode;

    async fn from_request_parts(_: &mut Parts, state: &Guarded) -> Result<Self, Self::Rejection> {
        let permit = state.permits.clone().try_acquire_owned();
        permit.map(Self).map_err(|_| StatusCode::TOO_MANY_REQUESTS)
    }
}

struct Pair {
    name: &'static str,
    #[expect(dead_code, reason = "held for its drop")]
    permit: Permit,
}

impl FromRequestParts<Guarded> for Pair {
    type Rejection = StatusCode;

    async fn from_request_parts(
        parts: &mut Parts,
        state: &Guarded,
    ) -> Result<Self, Self::Rejection> {
        let permit = Permit::from_request_parts(parts, state).await?;
        Ok(Self {
            name: "pair",
            permit,
        })
    }
}

#[idempotent(scope = global)]
async fn with_wildcard(State(state): State<Guarded>, _: Permit, _: Bytes) -> String {
    state.runs.pass().await.to_string()
}

#[idempotent(scope = global)]
async fn with_unused(_permit: Permit, State(state): State<Guarded>, _: Bytes) -> String {
    state.runs.pass().await.to_string()
}

#[idempotent(scope = name)]
async fn with_rest(State(state): State<Guarded>, Pair { name, .. }: Pair, _: Bytes) -> String {
    format!("{name} {}", state.runs.pass().await)
}

#[idempotent(scope = global)]
async fn with_last(State(state): State<Guarded>, _: Permit) -> String {
    state.runs.pass().await.to_string()
}

#[tokio::test]
async fn arguments_are_dropped_only_after_the_handler_ends() {
    let state = Guarded {
        runs: Runs::default(),
        permits: Arc::new(Semaphore::new(1)),
    };
    let idem = Idempotency::in_memory();
    let router = Router::new()
        .route("/wildcard", post(with_wildcard))
        .route("/unused", post(with_unused))
        .route("/rest", post(with_rest))
        .route("/last", post(with_last))
        .layer(idem)
        .with_state(state.clone());
    let server = Server::start(router).await;
    for (run, path) in ["/wildcard", "/unused", "/rest", "/last"]
        .into_iter()
        .enumerate()
    {
        let stream = server.write(post_bytes(path, path, "")).await;
        state.runs.until_started(run + 1).await;
        drop(stream);
        // By the time that the server has served other requests, it has noticed the close.
        for _ in 0..20 {
            let answer = server.post("/unused", "another", "").await;
            assert_eq!(answer.status, 429, "{path} dropped its permit");
        }
        state.runs.open(1);
        eventually("the handler returns its permit", || {
            state.permits.available_permits() == 1
        })
        .await;
        assert_eq!(state.runs.finished(), run + 1);
    }
}

#[tokio::test]
async fn drain_returns_the_number_of_unfinished_runs_and_keeps_their_claims() {
    let (server, runs, idem) = start().await;
    let stream = server.write(post_bytes("/slow", "k", "")).await;
    runs.until_started(1).await;
    drop(stream);
    assert_eq!(idem.drain(Duration::from_millis(20)).await, 1);
    assert_eq!(
        server.post("/slow", "k", "").await.code(),
        "idempotency_key_in_flight"
    );
    runs.open(1);
    assert_eq!(idem.drain(Duration::from_secs(30)).await, 0);
    assert!(server.post("/slow", "k", "").await.is_replay());
}

/// An attempt that is dropped with its runtime has an unknown outcome. It is not in flight.
#[test]
fn a_runtime_shutdown_leaves_the_outcome_unknown() {
    let (runs, idem) = (Runs::default(), Idempotency::in_memory());
    for (is_multi, key) in [(false, "a"), (true, "b")] {
        let mut builder = if is_multi {
            tokio::runtime::Builder::new_multi_thread()
        } else {
            tokio::runtime::Builder::new_current_thread()
        };
        let (runs_before, router) = (runs.started(), router(&runs, idem.clone()));
        let first = builder.enable_all().build().expect("a tokio runtime");
        first.block_on(async {
            let server = Server::start(router.clone()).await;
            let stream = server.write(post_bytes("/slow", key, "")).await;
            runs.until_started(runs_before + 1).await;
            drop(stream);
            server.post("/slow", key, "").await;
        });
        first.shutdown_background();

        let second = builder.build().expect("a tokio runtime");
        second.block_on(async {
            let server = Server::start(router).await;
            runs.open(1);
            loop {
                let retry = server.post("/slow", key, "").await;
                if retry.status == 201 {
                    assert!(!retry.is_replay());
                    break;
                }
            }
        });
        assert_eq!(runs.started(), runs_before + 2);
    }
}

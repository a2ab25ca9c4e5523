//! Rate limits before and behind a replay: what counts, and what a 429 does to the key.

use std::num::NonZero;
use std::sync::Arc;

use axum::extract::{FromRef, FromRequest, Request, State};
use axum::http::StatusCode;
use axum::http::header::{HeaderName, RETRY_AFTER};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use axum::{Json, Router};
use axum_idem::{Idempotency, idempotent};
use governor::{DefaultDirectRateLimiter, Quota, RateLimiter};

use crate::support::{Answer, KEY, Runs, Server, request};

/// Allows a number of requests at once. The next one would be allowed many minutes later.
#[derive(Clone)]
struct Limit(Arc<DefaultDirectRateLimiter>);

impl Limit {
    fn of(requests: u32) -> Self {
        let requests = NonZero::new(requests).expect("a limit");
        Self(Arc::new(RateLimiter::direct(Quota::per_hour(requests))))
    }

    fn check(&self) -> Result<(), Exceeded> {
        let exceeded = (StatusCode::TOO_MANY_REQUESTS, [(RETRY_AFTER, "60")]);
        self.0.check().map_err(|_| exceeded)
    }
}

type Exceeded = (StatusCode, [(HeaderName, &'static str); 1]);

async fn limit(State(limit): State<Limit>, request: Request, next: Next) -> Response {
    match limit.check() {
        Ok(()) => next.run(request).await,
        Err(exceeded) => exceeded.into_response(),
    }
}

#[derive(Clone, FromRef)]
struct App {
    runs: Runs,
    limit: Limit,
}

/// The last argument is extracted only when the handler is about to run.
struct Limited<T>(T);

impl<T: FromRequest<App>> FromRequest<App> for Limited<T> {
    type Rejection = Response;

    async fn from_request(request: Request, app: &App) -> Result<Self, Response> {
        app.limit.check().map_err(IntoResponse::into_response)?;
        let inner = T::from_request(request, app).await;
        inner.map(Self).map_err(IntoResponse::into_response)
    }
}

#[idempotent(scope = global)]
async fn pay(State(runs): State<Runs>, _: String) -> String {
    runs.count().to_string()
}

#[idempotent(scope = global)]
async fn slow(State(runs): State<Runs>) -> String {
    runs.pass().await.to_string()
}

#[idempotent(scope = global)]
async fn limited_argument(
    State(runs): State<Runs>,
    Limited(Json(_)): Limited<Json<u32>>,
) -> String {
    runs.count().to_string()
}

#[idempotent(scope = global)]
async fn limited_handler(
    State(runs): State<Runs>,
    State(limit): State<Limit>,
    Json(_): Json<u32>,
) -> Result<String, Exceeded> {
    limit.check()?;
    Ok(runs.count().to_string())
}

#[idempotent(scope = global, record = [2xx, 4xx])]
async fn recorded(State(limit): State<Limit>) -> Result<String, Exceeded> {
    limit.check().map(|()| "paid".to_owned())
}

fn routes(requests: u32) -> (Router, Runs) {
    let app = App {
        runs: Runs::default(),
        limit: Limit::of(requests),
    };
    let router = Router::new()
        .route("/pay", post(pay))
        .route("/slow", post(slow))
        .route("/limited-argument", post(limited_argument))
        .route("/limited-handler", post(limited_handler))
        .route("/recorded", post(recorded))
        .with_state(app.clone());
    (router, app.runs)
}

/// A service with a limit in a layer, and the same service without it.
struct Services {
    limited: Server,
    unlimited: Server,
    runs: Runs,
}

impl Services {
    async fn start(requests: u32, is_above: bool) -> Self {
        let (routes, runs) = routes(1);
        let idem = Idempotency::in_memory();
        let layer = from_fn_with_state(Limit::of(requests), limit);
        let limited = if is_above {
            routes.clone().layer(idem.clone()).layer(layer)
        } else {
            routes.clone().layer(layer).layer(idem.clone())
        };
        Self {
            limited: Server::start(limited).await,
            unlimited: Server::start(routes.layer(idem)).await,
            runs,
        }
    }
}

fn is_refused(answer: &Answer) -> bool {
    answer.status == StatusCode::TOO_MANY_REQUESTS && answer.headers[RETRY_AFTER] == "60"
}

#[tokio::test]
async fn a_limit_in_a_layer_counts_replays_and_refusals_above_and_below() {
    for is_above in [true, false] {
        let Services { limited, runs, .. } = Services::start(3, is_above).await;
        assert_eq!(limited.post("/pay", "k", "a").await.text(), "1");
        assert!(limited.post("/pay", "k", "a").await.is_replay());
        let reused = limited.post("/pay", "k", "b").await;
        assert_eq!(reused.code(), "idempotency_key_reused");
        let retry = limited.post("/pay", "k", "a").await;
        assert!(is_refused(&retry) && !retry.is_replay(), "{retry:?}");
        assert_eq!(runs.started(), 1);
    }
}

#[tokio::test]
async fn the_429_of_a_layer_leaves_each_key_as_it_was() {
    for is_above in [true, false] {
        let services = Services::start(2, is_above).await;
        let Services {
            limited, unlimited, ..
        } = services;
        let running = tokio::spawn(async move { limited.post("/slow", "running", "").await });
        services.runs.until_started(1).await;
        let first = limited.post("/pay", "recorded", "").await;
        assert_eq!(first.text(), "2");
        for (path, key) in [("/pay", "recorded"), ("/pay", "new"), ("/slow", "running")] {
            let refused = limited.post(path, key, "").await;
            assert!(is_refused(&refused), "{refused:?}");
        }
        // A request with another body uses the key, so the key of the refused request was free.
        assert_eq!(unlimited.post("/pay", "new", "other").await.text(), "3");
        let replay = unlimited.post("/pay", "recorded", "").await;
        assert!(replay.is_replay() && replay.text() == "2", "{replay:?}");
        let in_flight = unlimited.post("/slow", "running", "").await;
        assert_eq!(in_flight.code(), "idempotency_key_in_flight");
        services.runs.open(1);
        assert_eq!(running.await.expect("no panic").text(), "1");
        assert!(unlimited.post("/slow", "running", "").await.is_replay());
        assert_eq!(services.runs.started(), 3);
    }
}

async fn pay_json(server: Server, path: &str, key: &str) -> Answer {
    let headers = [(KEY, key), ("content-type", "application/json")];
    let request = request(axum::http::Method::POST, path, headers, "7");
    server.send(request).await
}

#[tokio::test]
async fn a_limit_in_the_last_argument_or_in_the_handler_counts_only_runs() {
    for path in ["/limited-argument", "/limited-handler"] {
        let (routes, runs) = routes(2);
        let server = Server::start(routes.layer(Idempotency::in_memory())).await;
        for key in ["a", "b"] {
            for is_replay in [false, true, true] {
                let answer = pay_json(server, path, key).await;
                assert_eq!(answer.status, StatusCode::OK, "{path}: {answer:?}");
                assert_eq!(answer.is_replay(), is_replay, "{path}");
            }
        }
        let refused = pay_json(server, path, "c").await;
        assert!(is_refused(&refused), "{path}: {refused:?}");
        let replay = pay_json(server, path, "a").await;
        assert!(replay.is_replay(), "a replay needs no quota: {replay:?}");
        assert_eq!(runs.started(), 2);
    }
}

/// 429 is not recorded by default, so the next retry asks the limit again.
#[tokio::test]
async fn the_429_of_an_argument_or_a_handler_releases_the_key() {
    for path in ["/limited-argument", "/limited-handler"] {
        let idem = Idempotency::in_memory();
        let (exhausted, _) = routes(1);
        let exhausted = Server::start(exhausted.layer(idem.clone())).await;
        pay_json(exhausted, path, "a").await;
        for _ in 0..2 {
            let refused = pay_json(exhausted, path, "b").await;
            assert!(is_refused(&refused) && !refused.is_replay(), "{refused:?}");
        }
        // The same service, with a quota again.
        let (refilled, runs) = routes(1);
        let refilled = Server::start(refilled.layer(idem)).await;
        let answer = pay_json(refilled, path, "b").await;
        assert_eq!(answer.text(), "1", "{path}: {answer:?}");
        assert!(!answer.is_replay() && runs.started() == 1);
    }
}

#[tokio::test]
async fn a_429_of_the_handler_that_is_recorded_reaches_every_retry() {
    let idem = Idempotency::in_memory();
    let (exhausted, _) = routes(1);
    let exhausted = Server::start(exhausted.layer(idem.clone())).await;
    assert_eq!(exhausted.post("/recorded", "a", "").await.text(), "paid");
    assert!(is_refused(&exhausted.post("/recorded", "b", "").await));
    let (refilled, _) = routes(1);
    let refilled = Server::start(refilled.layer(idem)).await;
    let retry = refilled.post("/recorded", "b", "").await;
    assert!(is_refused(&retry) && retry.is_replay(), "{retry:?}");
}

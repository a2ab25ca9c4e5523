//! A service with one endpoint per policy. Its handlers wait before and after their effect.

use std::convert::Infallible;
use std::future::pending;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::{FromRequest, Request, State};
use axum::http::StatusCode;
use axum::middleware::{Next, from_fn};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use axum::{Json, Router};
use axum_idem::store::Store;
use axum_idem::{Attempt, DoNotRecord, Idempotency, OutcomeUnknown, idempotent};
use futures_util::stream;
use http_body_util::BodyExt;
use tokio::sync::Semaphore;
use tokio::task::yield_now;
use tokio::time::sleep;
use tower::ServiceExt;
use tower_http::catch_panic::CatchPanicLayer;

/// The effects of the handlers in all processes.
#[derive(Clone, Default)]
pub(crate) struct Effects(Arc<Shared>);

struct Shared {
    /// The fence of each run that had its effect.
    fences: Mutex<Vec<u64>>,
    panics: AtomicBool,
    gate: Semaphore,
}

impl Default for Shared {
    fn default() -> Self {
        Self {
            fences: Mutex::default(),
            panics: AtomicBool::new(false),
            gate: Semaphore::new(1_000),
        }
    }
}

impl Effects {
    pub(crate) fn count(&self) -> usize {
        self.fences().len()
    }

    pub(crate) fn fences(&self) -> Vec<u64> {
        self.0.fences.lock().expect("no panic").clone()
    }

    /// Makes the next run panic after its effect.
    pub(crate) fn panic_next(&self) {
        self.0.panics.store(true, Ordering::SeqCst);
    }

    /// Holds runs after their effect until the gate opens.
    pub(crate) fn close_gate(&self) {
        let open = self.0.gate.available_permits();
        self.0.gate.forget_permits(open);
    }

    pub(crate) fn open_gate(&self) {
        self.0.gate.add_permits(1_000);
    }

    /// Runs the handler's work and returns the number of the run.
    async fn run(&self, attempt: &Attempt) -> String {
        yield_now().await;
        let number = {
            let mut fences = self.0.fences.lock().expect("no panic");
            // Without a claim there is no fence.
            fences.push(attempt.fence().unwrap_or_default());
            fences.len()
        };
        yield_now().await;
        if self.0.panics.swap(false, Ordering::SeqCst) {
            // `resume_unwind` does not print a panic message.
            std::panic::resume_unwind(Box::new("told to panic"));
        }
        self.0
            .gate
            .acquire()
            .await
            .expect("the gate is never closed")
            .forget();
        format!("run {number}")
    }
}

const RESPONSE_TIMEOUT: Duration = Duration::from_millis(400);
/// The request, and the one that runs before it or the one that is sent after it. A permit that is not
/// returned makes the next request fail.
const MAX_RUNNING: usize = 2;

type Answered = (StatusCode, String);

#[idempotent(scope = global)]
async fn order(State(effects): State<Effects>, attempt: Attempt, _order: Bytes) -> Answered {
    (StatusCode::CREATED, effects.run(&attempt).await)
}

#[idempotent(scope = global, on_unknown = hold)]
async fn held(State(effects): State<Effects>, attempt: Attempt, _order: Bytes) -> Answered {
    (StatusCode::CREATED, effects.run(&attempt).await)
}

#[idempotent(scope = global, in_flight = wait("60s"))]
async fn wait(State(effects): State<Effects>, attempt: Attempt, _order: Bytes) -> Answered {
    (StatusCode::CREATED, effects.run(&attempt).await)
}

#[idempotent(scope = global)]
async fn fails(State(effects): State<Effects>, attempt: Attempt, _order: Bytes) -> Answered {
    let run = effects.run(&attempt).await;
    (StatusCode::INTERNAL_SERVER_ERROR, run)
}

#[idempotent(scope = global)]
async fn opts_out(State(effects): State<Effects>, attempt: Attempt, _: Bytes) -> impl IntoResponse {
    let run = effects.run(&attempt).await;
    (StatusCode::ACCEPTED, DoNotRecord, run)
}

/// A response whose body waits and is longer than the recording limit.
#[idempotent(scope = global)]
async fn streams(State(effects): State<Effects>, attempt: Attempt, _order: Bytes) -> Response {
    let run = effects.run(&attempt).await;
    let chunks = stream::unfold(0, move |chunk| {
        let run = run.clone();
        async move {
            yield_now().await;
            (chunk < 3).then(|| (Ok::<_, Infallible>(format!("{run:>400}")), chunk + 1))
        }
    });
    Body::from_stream(chunks).into_response()
}

/// A body that is streamed, and read by the extractor after the claim.
#[idempotent(scope = global, fingerprint = none)]
async fn uploads(State(effects): State<Effects>, attempt: Attempt, _order: Bytes) -> Answered {
    (StatusCode::CREATED, effects.run(&attempt).await)
}

#[idempotent(scope = global)]
async fn unknown(State(effects): State<Effects>, attempt: Attempt, _: Bytes) -> impl IntoResponse {
    let run = effects.run(&attempt).await;
    (StatusCode::ACCEPTED, OutcomeUnknown, run)
}

#[idempotent(scope = global, unknown = [202], on_unknown = hold)]
async fn held_unknown(State(effects): State<Effects>, attempt: Attempt, _: Bytes) -> Answered {
    (StatusCode::ACCEPTED, effects.run(&attempt).await)
}

#[idempotent(scope = global, max_run = "200ms")]
async fn hangs(State(effects): State<Effects>, attempt: Attempt, _order: Bytes) -> Answered {
    effects.run(&attempt).await;
    pending().await
}

#[idempotent(scope = global, max_run = "200ms", on_unknown = hold)]
async fn held_hangs(State(effects): State<Effects>, attempt: Attempt, _order: Bytes) -> Answered {
    effects.run(&attempt).await;
    pending().await
}

/// A body extractor that waits for ever.
struct Endless;

impl<S: Send + Sync> FromRequest<S> for Endless {
    type Rejection = Infallible;

    async fn from_request(_: Request, _: &S) -> Result<Self, Infallible> {
        yield_now().await;
        pending().await
    }
}

#[idempotent(scope = global, max_run = "200ms", on_unknown = hold)]
async fn hangs_early(State(effects): State<Effects>, attempt: Attempt, _: Endless) -> Answered {
    (StatusCode::CREATED, effects.run(&attempt).await)
}

/// A response whose body takes longer than it is collected.
#[idempotent(scope = global)]
async fn slow(State(effects): State<Effects>, attempt: Attempt, _order: Bytes) -> Response {
    let run = effects.run(&attempt).await;
    let chunks = stream::unfold(0, move |chunk| {
        let run = run.clone();
        async move {
            sleep(RESPONSE_TIMEOUT / 2).await;
            (chunk < 3).then(|| (Ok::<_, Infallible>(run), chunk + 1))
        }
    });
    Body::from_stream(chunks).into_response()
}

#[derive(serde::Deserialize)]
struct Refused {}

/// A body extractor that waits and then rejects the request.
struct Slow;

impl<S: Send + Sync> FromRequest<S> for Slow {
    type Rejection = Response;

    async fn from_request(request: Request, state: &S) -> Result<Self, Response> {
        yield_now().await;
        let extracted = Json::from_request(request, state).await;
        yield_now().await;
        let Json(Refused {}) = extracted.map_err(IntoResponse::into_response)?;
        Ok(Self)
    }
}

#[idempotent(scope = global)]
async fn rejects(State(effects): State<Effects>, attempt: Attempt, _order: Slow) -> Answered {
    (StatusCode::CREATED, effects.run(&attempt).await)
}

#[idempotent(scope = global, record_rejections)]
async fn keeps_rejections(
    State(effects): State<Effects>,
    attempt: Attempt,
    _order: Slow,
) -> Answered {
    (StatusCode::CREATED, effects.run(&attempt).await)
}

/// A layer that waits before and behind its handler, as a transaction does.
async fn commits(request: Request, next: Next) -> Response {
    yield_now().await;
    let response = next.run(request).await;
    yield_now().await;
    yield_now().await;
    response
}

/// A layer whose commit fails.
async fn commit_fails(request: Request, next: Next) -> Response {
    let response = commits(request, next).await;
    if response.status().is_success() {
        return (StatusCode::INTERNAL_SERVER_ERROR, "the commit failed").into_response();
    }
    response
}

/// One process of the service.
#[derive(Clone)]
pub(crate) struct Shop(Router);

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) is_replay: bool,
    /// The problem code, when the response is a problem.
    pub(crate) code: Option<String>,
    pub(crate) text: String,
}

impl Shop {
    pub(crate) fn open(store: impl Store, lease: Duration, effects: &Effects) -> Self {
        let idem = Idempotency::builder()
            .store(store)
            .lease(lease)
            .max_recorded_body(1_000)
            .max_running(MAX_RUNNING)
            .response_timeout(RESPONSE_TIMEOUT)
            .build();
        let router = Router::new()
            .route("/order", post(order))
            .route("/held", post(held))
            .route("/wait", post(wait))
            .route("/fails", post(fails))
            .route("/opts-out", post(opts_out))
            .route("/streams", post(streams))
            .route("/uploads", post(uploads))
            .route("/unknown", post(unknown))
            .route("/unknown-held", post(held_unknown))
            .route("/hangs", post(hangs))
            .route("/hangs-held", post(held_hangs))
            .route("/hangs-early", post(hangs_early))
            .route("/slow", post(slow))
            .route("/rejects", post(rejects))
            .route("/keeps-rejections", post(keeps_rejections))
            .route("/commits", post(order).layer(from_fn(commits)))
            .route("/commits-held", post(held).layer(from_fn(commits)))
            .route("/commit-fails", post(order).layer(from_fn(commit_fails)))
            .layer(CatchPanicLayer::new())
            .layer(idem)
            .with_state(effects.clone());
        Self(router)
    }

    /// Sends `POST path` with a body in two pieces.
    pub(crate) async fn post(self, path: &'static str, body: &'static str) -> Answer {
        let (one, two) = body.split_at(body.len() / 2);
        let pieces = stream::unfold(vec![two, one], |mut pieces| async move {
            yield_now().await;
            let piece = pieces.pop()?;
            Some((Ok::<_, Infallible>(piece), pieces))
        });
        let request = Request::post(path)
            .header("idempotency-key", "8e03978e")
            .header("content-type", "application/json")
            .body(Body::from_stream(pieces))
            .expect("a valid request");
        let Ok(answer) = self.0.oneshot(request).await;
        let (status, headers) = (answer.status().as_u16(), answer.headers().clone());
        let bytes = answer
            .into_body()
            .collect()
            .await
            .expect("a whole body")
            .to_bytes();
        let text = String::from_utf8_lossy(&bytes).into_owned();
        let problem: Option<serde_json::Value> = serde_json::from_str(&text).ok();
        let code = problem.and_then(|it| Some(it.get("code")?.as_str()?.to_owned()));
        let is_replay = headers.contains_key("idempotency-replayed");
        Answer {
            status,
            is_replay,
            code,
            text,
        }
    }
}

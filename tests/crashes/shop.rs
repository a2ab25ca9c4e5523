//! A service with one endpoint per policy. Its handlers wait before and after their effect.

use std::convert::Infallible;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::{FromRequest, Request, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use axum::{Json, Router};
use axum_idem::store::Store;
use axum_idem::{Attempt, DoNotRecord, Idempotency, idempotent};
use futures_util::stream;
use http_body_util::BodyExt;
use tokio::sync::Semaphore;
use tokio::task::yield_now;
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
            .build();
        let router = Router::new()
            .route("/order", post(order))
            .route("/held", post(held))
            .route("/wait", post(wait))
            .route("/fails", post(fails))
            .route("/opts-out", post(opts_out))
            .route("/streams", post(streams))
            .route("/rejects", post(rejects))
            .route("/keeps-rejections", post(keeps_rejections))
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

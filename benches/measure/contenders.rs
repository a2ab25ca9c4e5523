//! The same service three times: bare, with the library, and by hand, with the requests to measure.

use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::routing::post;
use axum::{Json, Router};
use axum_idem::store::{MemoryStore, Store};
use axum_idem::{Idempotency, idempotent};
use http_body_util::BodyExt;
use serde::{Deserialize, Serialize};
use tower::ServiceExt;

use super::minimum::{self, Minimum};

/// A router, and the keys of the requests that it gets.
pub(crate) struct Contender {
    pub(crate) name: &'static str,
    pub(crate) router: Router,
    pub(crate) key: Key,
    status: StatusCode,
}

impl Contender {
    pub(crate) fn new(name: &'static str, router: Router, key: Key) -> Self {
        // `axum::serve` does this too. Without it, the layers would be applied again for every request.
        let router = router.with_state(());
        Self {
            name,
            router,
            key,
            status: StatusCode::CREATED,
        }
    }

    /// Sets the status that the responses must have.
    pub(crate) fn answers(mut self, status: StatusCode) -> Self {
        self.status = status;
        self
    }

    /// Creates the `n`th request. This is the client's work, so it happens before the measurement.
    pub(crate) fn request(&self, n: u64, body: &str) -> Request {
        let mut request = Request::post("/trades")
            .header("host", "localhost")
            .header("authorization", "Bearer 0123456789abcdef0123456789abcdef")
            .header("content-type", "application/json")
            .header("content-length", body.len());
        if let Some(key) = (self.key)(n) {
            let key = format!("8e03978e-40d5-43e8-bc93-{key:012x}");
            request = request.header("idempotency-key", key);
        }
        let body = Body::from(body.to_owned());
        request.body(body).expect("a valid request")
    }

    pub(crate) fn requests(&self, numbers: impl Iterator<Item = u64>, body: &str) -> Vec<Request> {
        numbers.map(|n| self.request(n, body)).collect()
    }

    /// Serves a request and reads its response.
    pub(crate) async fn serve(&self, request: Request) {
        let answer = self.router.clone().oneshot(request).await;
        let answer = answer.expect("infallible");
        assert_eq!(answer.status(), self.status, "{}", self.name);
        let body = answer.into_body().collect().await;
        std::hint::black_box(body.expect("a body").to_bytes());
    }
}

/// Returns the key of the `n`th request.
pub(crate) type Key = fn(u64) -> Option<u64>;

pub(crate) const NO_KEY: Key = |_| None;
pub(crate) const SAME_KEY: Key = |_| Some(u64::MAX >> 16);

#[derive(Deserialize)]
pub(crate) struct Order {
    symbol: String,
    side: String,
    quantity: u32,
    limit: f64,
    note: String,
}

#[derive(Serialize)]
pub(crate) struct Trade {
    symbol: String,
    side: String,
    quantity: u32,
    limit: f64,
    note: String,
    memo: &'static str,
}

pub(crate) fn book(order: Order) -> (StatusCode, Json<Trade>) {
    let trade = Trade {
        symbol: order.symbol,
        side: order.side,
        quantity: order.quantity,
        limit: order.limit,
        note: order.note,
        memo: "booked at the price of the moment, to be settled in two days' time, at the latest",
    };
    (StatusCode::CREATED, Json(trade))
}

async fn bare_handler(Json(order): Json<Order>) -> (StatusCode, Json<Trade>) {
    book(order)
}

#[idempotent(scope = token)]
pub(crate) async fn protected_handler(Json(order): Json<Order>) -> (StatusCode, Json<Trade>) {
    book(order)
}

pub(crate) fn bare() -> Router {
    Router::new().route("/trades", post(bare_handler))
}

fn idempotency(store: impl Store) -> Idempotency {
    Idempotency::builder()
        .store(store)
        .max_recorded_body(LONGEST_ANSWER)
        .build()
}

pub(crate) fn protected(store: impl Store) -> Router {
    Router::new()
        .route("/trades", post(protected_handler))
        .layer(idempotency(store))
}

/// The same service with metrics, which go to a recorder.
#[cfg(feature = "metrics")]
pub(crate) fn observed(store: MemoryStore) -> Router {
    // Another path has installed it already.
    let _ = metrics::set_global_recorder(super::recorder::Recorder::new());
    let idem = Idempotency::builder()
        .store(store)
        .max_recorded_body(LONGEST_ANSWER)
        .observer(axum_idem::metrics::Metrics::default())
        .build();
    Router::new()
        .route("/trades", post(protected_handler))
        .layer(idem)
}

#[idempotent(scope = token, runtime = idem)]
async fn layerless_handler(
    State(idem): State<Idempotency>,
    Json(order): Json<Order>,
) -> (StatusCode, Json<Trade>) {
    book(order)
}

/// The same service without a layer. The handler names its `Idempotency`.
pub(crate) fn layerless(store: MemoryStore) -> Router {
    Router::new()
        .route("/trades", post(layerless_handler))
        .with_state(idempotency(store))
}

/// A response is a little longer than its request. The longest request has the default limit.
pub(crate) const LONGEST_ANSWER: usize = 2 << 20;

/// A store that no bench can fill.
pub(crate) fn wide_store() -> MemoryStore {
    MemoryStore::builder().max_bytes(16 << 30).build()
}

pub(crate) fn minimum() -> Router {
    Router::new()
        .route("/trades", post(minimum::handler))
        .with_state(Minimum::default())
}

/// Returns bare axum, which all others are compared with, and then the others.
pub(crate) fn contenders() -> Vec<Contender> {
    let ours = || protected(wide_store());
    let layerless = || layerless(wide_store());
    vec![
        Contender::new("bare", bare(), Some),
        Contender::new("no key", ours(), NO_KEY),
        Contender::new("first sight", ours(), Some),
        Contender::new("first sight, no layer", layerless(), Some),
        Contender::new("first sight, minimum", minimum(), Some),
        Contender::new("replay", ours(), SAME_KEY),
        Contender::new("replay, no layer", layerless(), SAME_KEY),
        Contender::new("replay, minimum", minimum(), SAME_KEY),
    ]
}

/// Returns an order of `size` bytes.
pub(crate) fn body(size: usize) -> String {
    let order = r#"{"symbol":"AAPL","side":"buy","quantity":10,"limit":189.25,"note":""}"#;
    let (head, tail) = order.split_at(order.len() - 2);
    format!("{head}{}{tail}", "n".repeat(size - order.len()))
}

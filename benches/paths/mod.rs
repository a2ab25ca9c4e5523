//! The ways in which one request can be served, each with the requests that take it.

mod minimum;

use std::future::pending;

use axum::body::{Body, Bytes};
use axum::extract::Request;
use axum::http::{HeaderName, StatusCode, header};
use axum::routing::post;
use axum::{Json, Router};
use axum_idem::store::MemoryStore;
use axum_idem::{Idempotency, idempotent};
use http_body_util::BodyExt;
use serde::{Deserialize, Serialize};
use tower::{Layer, Service, ServiceExt};

pub(crate) use self::minimum::Minimum;

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

fn book(order: Order) -> (StatusCode, Json<Trade>) {
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

async fn bare(Json(order): Json<Order>) -> (StatusCode, Json<Trade>) {
    book(order)
}

#[idempotent(scope = token)]
async fn protected(Json(order): Json<Order>) -> (StatusCode, Json<Trade>) {
    book(order)
}

/// The least that an answer to a whole request can cost, which is the limit of a replay.
async fn constant(_: Bytes) -> (StatusCode, [(HeaderName, &'static str); 1], &'static str) {
    const ANSWER: &str = concat!(
        r#"{"symbol":"AAPL","side":"buy","quantity":10,"limit":189.25,"note":"nnnnnnnnnnnnnnnnnnnnnnn"#,
        r#"nnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnn"#,
        r#"nnnnnnnnnnnnnnnnnnnnnnnn","memo":"booked at the price of the moment, to be settled in two "#,
        r#"days' time, at the latest"}"#,
    );
    let json = [(header::CONTENT_TYPE, "application/json")];
    (StatusCode::CREATED, json, ANSWER)
}

/// Holds its key for as long as the bench lasts.
#[idempotent(scope = token)]
async fn never_ending(Json(_): Json<Order>) -> StatusCode {
    pending().await
}

/// A layer that does nothing, as the measure of a layer that does little.
#[derive(Clone)]
struct Identity;

impl<S> Layer<S> for Identity {
    type Service = IdentityService<S>;

    fn layer(&self, inner: S) -> Self::Service {
        IdentityService(inner)
    }
}

#[derive(Clone)]
struct IdentityService<S>(S);

impl<S: Service<R>, R> Service<R> for IdentityService<S> {
    type Response = S::Response;
    type Error = S::Error;
    type Future = S::Future;

    fn poll_ready(
        &mut self,
        cx: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Result<(), S::Error>> {
        self.0.poll_ready(cx)
    }

    fn call(&mut self, request: R) -> S::Future {
        self.0.call(request)
    }
}

/// A body of `size` bytes.
pub(crate) fn body(size: usize) -> String {
    let order = r#"{"symbol":"AAPL","side":"buy","quantity":10,"limit":189.25,"note":""}"#;
    let (head, tail) = order.split_at(order.len() - 2);
    format!("{head}{}{tail}", "n".repeat(size - order.len()))
}

fn request(key: Option<u64>, body: &str) -> Request<Body> {
    let mut request = Request::post("/trades")
        .header("host", "localhost")
        .header("authorization", "Bearer 0123456789abcdef0123456789abcdef")
        .header("content-type", "application/json")
        .header("content-length", body.len());
    if let Some(key) = key {
        request = request.header(
            "idempotency-key",
            format!("8e03978e-40d5-43e8-bc93-{key:012x}"),
        );
    }
    request
        .body(Body::from(body.to_owned()))
        .expect("a request")
}

/// One way to serve.
pub(crate) struct Path {
    pub(crate) name: &'static str,
    router: Router,
    key: fn(u64) -> Option<u64>,
    status: StatusCode,
}

/// A key that every request of a path has.
const SAME: u64 = u64::MAX >> 16;

impl Path {
    pub(crate) fn new(name: &'static str, router: Router, key: fn(u64) -> Option<u64>) -> Self {
        Self {
            name,
            // As `axum::serve` does; else the layers are applied anew for every request.
            router: router.with_state(()),
            key,
            status: StatusCode::CREATED,
        }
    }

    fn answers(mut self, status: StatusCode) -> Self {
        self.status = status;
        self
    }

    /// The `n`th request that takes this path. Made before anything is measured: it is the
    /// client's part.
    pub(crate) fn request(&self, n: u64, body: &str) -> Request {
        request((self.key)(n), body)
    }

    /// Serves a request and reads its answer.
    pub(crate) async fn serve(&self, request: Request) {
        let answer = self.router.clone().oneshot(request).await;
        let answer = answer.expect("infallible");
        assert_eq!(answer.status(), self.status, "{}", self.name);
        let body = answer.into_body().collect().await;
        std::hint::black_box(body.expect("a body").to_bytes());
    }
}

/// The endpoint of the library's own paths.
pub(crate) fn protected_by(store: &MemoryStore) -> Router {
    let idem = Idempotency::builder()
        .store(store.clone())
        // An answer to the longest body that is measured is a little longer than that.
        .max_recorded_body(2 << 20)
        .build();
    Router::new().route("/trades", post(protected)).layer(idem)
}

/// Every path, bare axum first. Those of the library that read or write records do so in `store`.
pub(crate) async fn paths(store: &MemoryStore, body: &str) -> Vec<Path> {
    let bare = Router::new().route("/trades", post(bare));
    let constant = Router::new().route("/trades", post(constant));
    let minimum = || {
        let router = Router::new().route("/trades", post(minimum::handler));
        router.with_state(Minimum::default())
    };
    let idem = Idempotency::builder().store(store.clone()).build();
    let in_flight = Router::new()
        .route("/trades", post(never_ending))
        .layer(idem);
    let paths = vec![
        Path::new("bare", bare.clone(), Some),
        Path::new("bare, identity layer", bare.layer(Identity), |_| None),
        Path::new("no key", protected_by(store), |_| None),
        Path::new("first sight", protected_by(store), Some),
        Path::new("first sight, minimum", minimum(), Some),
        Path::new("replay", protected_by(store), |_| Some(SAME)),
        Path::new("replay, minimum", minimum(), |_| Some(SAME)),
        Path::new("a constant answer", constant, Some),
        Path::new("mismatch", protected_by(store), |_| Some(SAME - 1))
            .answers(StatusCode::CONFLICT),
        Path::new("in flight", in_flight, |_| Some(SAME - 2)).answers(StatusCode::CONFLICT),
    ];
    for path in &paths {
        match path.name {
            "mismatch" => {
                let other = body.replace("AAPL", "MSFT");
                let first = path.request(0, &other);
                let answer = path.router.clone().oneshot(first).await;
                assert_eq!(answer.expect("infallible").status(), StatusCode::CREATED);
            }
            "in flight" => {
                let first = path.router.clone().oneshot(path.request(0, body));
                tokio::spawn(first);
                tokio::task::yield_now().await;
            }
            "replay" | "replay, minimum" => path.serve(path.request(0, body)).await,
            _ => {}
        }
    }
    paths
}

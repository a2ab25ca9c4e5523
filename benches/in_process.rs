//! What a request costs in process, as a ratio to bare axum: `cargo bench --bench in_process`.
//!
//! Every path is timed in turn, in many short rounds of one run, so that whatever else the machine
//! does meets all of them alike. Printed are the median of the rounds' ratios and their quartiles.

use std::hint::black_box;
use std::time::{Duration, Instant};

use axum::body::Body;
use axum::http::{Request, StatusCode};
use axum::routing::post;
use axum::{Json, Router};
use axum_idem::store::MemoryStore;
use axum_idem::{Idempotency, idempotent};
use http_body_util::BodyExt;
use serde::{Deserialize, Serialize};
use tower::{Layer, Service, ServiceExt};

#[derive(Deserialize)]
struct Order {
    symbol: String,
    quantity: u32,
    note: String,
}

#[derive(Serialize)]
struct Trade {
    symbol: String,
    quantity: u32,
    note: String,
    memo: &'static str,
}

fn book(order: Order) -> (StatusCode, Json<Trade>) {
    let trade = Trade {
        symbol: order.symbol,
        quantity: order.quantity,
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

/// 200 bytes.
fn body(size: usize) -> String {
    let empty = r#"{"symbol":"AAPL","quantity":10,"note":""}"#.len();
    format!(
        r#"{{"symbol":"AAPL","quantity":10,"note":"{}"}}"#,
        "n".repeat(size - empty)
    )
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

/// One way to serve, with the keys that its requests carry.
struct Path {
    name: &'static str,
    router: Router,
    key: fn(u64) -> Option<u64>,
    times: Vec<f64>,
}

const PER_ROUND: u32 = 200;

impl Path {
    fn new(name: &'static str, router: Router, key: fn(u64) -> Option<u64>) -> Self {
        Self {
            name,
            router: router.with_state(()),
            key,
            times: Vec::new(),
        }
    }

    async fn round(&mut self, round: u64, body: &str) {
        let requests: Vec<_> = (0..PER_ROUND)
            .map(|at| {
                request(
                    (self.key)(round * u64::from(PER_ROUND) + u64::from(at)),
                    body,
                )
            })
            .collect();
        let begun = Instant::now();
        for request in requests {
            let answer = self
                .router
                .clone()
                .oneshot(request)
                .await
                .expect("infallible");
            debug_assert_eq!(answer.status(), StatusCode::CREATED);
            black_box(
                answer
                    .into_body()
                    .collect()
                    .await
                    .expect("a body")
                    .to_bytes(),
            );
        }
        self.times.push(begun.elapsed().as_secs_f64());
    }
}

fn quartiles(mut values: Vec<f64>) -> [f64; 3] {
    values.sort_by(f64::total_cmp);
    [1, 2, 3].map(|quarter| values[values.len() * quarter / 4])
}

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let rounds: u64 = std::env::var("ROUNDS")
        .ok()
        .and_then(|rounds| rounds.parse().ok())
        .unwrap_or(300);
    let idem = || {
        let store = MemoryStore::builder().max_bytes(8 << 30).build();
        Idempotency::builder().store(store).build()
    };
    for size in [200, 2 << 10, 16 << 10, 1 << 20] {
        let body = body(size);
        let route = |handler| Router::new().route("/trades", handler);
        let mut paths = [
            Path::new("bare", route(post(bare)), |_| None),
            Path::new(
                "bare, identity layer",
                route(post(bare)).layer(Identity),
                |_| None,
            ),
            Path::new("no key", route(post(protected)).layer(idem()), |_| None),
            Path::new("first sight", route(post(protected)).layer(idem()), Some),
            Path::new("replay", route(post(protected)).layer(idem()), |_| Some(0)),
        ];
        let rounds = if size > 100_000 { rounds / 20 } else { rounds };
        for round in 0..rounds {
            for path in &mut paths {
                path.round(round, &body).await;
            }
        }
        let bare = paths[0].times.clone();
        let bare_per_request = quartiles(bare.clone())[1] / f64::from(PER_ROUND);
        println!(
            "{size} B; bare axum {:?} a request",
            Duration::from_secs_f64(bare_per_request)
        );
        for path in &paths[1..] {
            let ratios = path
                .times
                .iter()
                .zip(&bare)
                .map(|(time, bare)| time / bare)
                .collect();
            let [low, median, high] = quartiles(ratios);
            println!("  {:<22} {median:.2}  ({low:.2} to {high:.2})", path.name);
        }
    }
}

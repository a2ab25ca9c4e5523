//! What a response in the handler's own transaction costs.
//!
//! ```sh
//! cargo bench --bench commit --all-features             # PostgreSQL
//! cargo bench --bench commit --all-features -- sqlite   # one SQLite file
//! ```
//!
//! One run measures four handlers in turn, in short rounds (`ROUNDS`, 12): a bare transaction, a transaction
//! whose response is recorded afterwards, and a transaction that contains its response, with and without
//! `transactional`. `CALLERS` (16) tasks call the handler without a socket. Each commit waits for the disk. The
//! figures are ratios of the calls in a second, and on PostgreSQL also flushes of the log for each call.

mod postgres;
mod sqlite;

use std::env;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Body;
use axum::http::{Request, StatusCode};
use tower::ServiceExt as _;

const RESPONSE: &str = r#"{"id":"pay_2291","amount":700,"currency":"EUR","status":"succeeded"}"#;

const CASES: [(&str, &str); 4] = [
    ("/bare", "a bare transaction"),
    ("/afterwards", "recorded after the commit"),
    ("/inside", "recorded in the transaction"),
    ("/transactional", "the same, transactional"),
];

/// The calls in a second of each case, and its flushes for each call, in each round.
struct Measured {
    rates: [Vec<f64>; 4],
    flushes: [Vec<f64>; 4],
}

fn number(name: &str, otherwise: usize) -> usize {
    env::var(name).map_or(otherwise, |text| text.parse().expect("a number"))
}

#[tokio::main]
async fn main() {
    if env::args().any(|argument| argument == "--test") {
        return;
    }
    let callers = number("CALLERS", 16);
    if env::args().any(|argument| argument == "sqlite") {
        let measured = sqlite::measure(callers).await;
        println!(
            "{callers} callers, one SQLite file: calls in a second, ratio to a bare transaction"
        );
        measured.print(false);
    } else {
        let measured = postgres::measure(callers).await;
        println!(
            "{callers} callers, a log that is flushed: calls in a second, ratio to a bare transaction, and"
        );
        println!("flushes of the log for each call");
        measured.print(true);
    }
}

impl Measured {
    /// Calls each case in turn. `flushes` returns the number of flushes until now.
    async fn new(router: &Router, callers: usize, flushes: impl Fn() -> f64) -> Self {
        let keys = Arc::new(AtomicUsize::new(0));
        let mut measured = Self {
            rates: CASES.map(|_| Vec::new()),
            flushes: CASES.map(|_| Vec::new()),
        };
        for round in 0..=number("ROUNDS", 12) {
            for (at, (path, _)) in CASES.iter().enumerate() {
                let before = flushes();
                let (calls, took) = run(router, path, callers, &keys).await;
                let after = flushes();
                // The first round opens connections and fills caches.
                if round > 0 {
                    #[expect(clippy::cast_precision_loss, reason = "a small number")]
                    let calls = calls as f64;
                    measured.rates[at].push(calls / took.as_secs_f64());
                    measured.flushes[at].push((after - before) / calls);
                }
            }
        }
        measured
    }

    fn print(&self, has_flushes: bool) {
        for (at, (_, name)) in CASES.iter().enumerate() {
            let ratios = self.rates[at].iter().zip(&self.rates[0]);
            let ratios: Vec<_> = ratios.map(|(rate, bare)| rate / bare).collect();
            let [low, middle, high] = quartiles(ratios);
            print!("{name:<34} {middle:>5.2} ({low:.2} to {high:.2})");
            if has_flushes {
                let [_, for_each, _] = quartiles(self.flushes[at].clone());
                print!(" {for_each:>6.2}");
            }
            println!();
        }
    }
}

/// Calls a handler from several tasks for a while. Returns the number of calls and how long they took.
async fn run(
    router: &Router,
    path: &'static str,
    callers: usize,
    keys: &Arc<AtomicUsize>,
) -> (usize, Duration) {
    let begun = Instant::now();
    let until = begun + Duration::from_millis(1_500);
    let callers = (0..callers).map(|_| {
        let (router, keys) = (router.clone(), keys.clone());
        tokio::spawn(async move {
            let mut calls = 0;
            while Instant::now() < until {
                let key = keys.fetch_add(1, Ordering::Relaxed);
                let request = Request::post(path)
                    .header("idempotency-key", format!("key-{key:032}"))
                    .header("authorization", "Bearer alice")
                    .body(Body::from("{\"amount\":700}"));
                let response = router.clone().oneshot(request.expect("a request")).await;
                let response = response.expect("a router does not fail");
                assert_eq!(response.status(), StatusCode::CREATED, "{path}");
                calls += 1;
            }
            calls
        })
    });
    let mut calls = 0;
    for caller in callers.collect::<Vec<_>>() {
        calls += caller.await.expect("no panic");
    }
    (calls, begun.elapsed())
}

fn quartiles(mut values: Vec<f64>) -> [f64; 3] {
    values.sort_by(f64::total_cmp);
    [1, 2, 3].map(|quarter| values[(values.len() - 1) * quarter / 4])
}

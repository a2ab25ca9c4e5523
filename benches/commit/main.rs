//! What a response in the handler's own transaction costs.
//!
//! ```sh
//! cargo bench --bench commit --all-features             # PostgreSQL
//! cargo bench --bench commit --all-features -- sqlite   # one SQLite file
//! ```
//!
//! One run measures four handlers in turn, in short rounds (`ROUNDS`, 12): a bare transaction, a transaction
//! whose response is recorded afterwards, and a transaction that contains its response, with and without
//! `transactional`. On PostgreSQL, a fifth handler does by hand what `transactional` does, in as many round trips and with
//! the simplest statements. `CALLERS` (16) tasks call the handler without a socket. Each commit waits for the disk. The
//! figures are ratios of the calls in a second. On PostgreSQL, the further columns are for each call: flushes of the log,
//! and the processor time of the server and of this process in microseconds.

mod postgres;
mod spent;
mod sqlite;

use std::env;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Body;
use axum::http::{Request, StatusCode};
use tower::ServiceExt as _;

use self::spent::Spent;

const RESPONSE: &str = r#"{"id":"pay_2291","amount":700,"currency":"EUR","status":"succeeded"}"#;

const BY_HAND: &str = "/by_hand";

const CASES: [(&str, &str); 5] = [
    ("/bare", "a bare transaction"),
    ("/afterwards", "recorded after the commit"),
    ("/inside", "recorded in the transaction"),
    ("/transactional", "the same, transactional"),
    (BY_HAND, "the same by hand"),
];

/// The calls in a second of each case, and what it has spent for each call, in each round.
struct Measured {
    rates: [Vec<f64>; 5],
    spent: [Vec<[f64; 3]>; 5],
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
            "{callers} callers, a log that is flushed: calls in a second, ratio to a bare transaction, and for"
        );
        println!("each call: flushes of the log, microseconds of the server, and of the service");
        measured.print(true);
    }
}

impl Measured {
    /// Calls each case in turn. `spent` returns what the server has done until now.
    async fn new(router: &Router, callers: usize, spent: impl Fn() -> Spent) -> Self {
        let keys = Arc::new(AtomicUsize::new(0));
        let mut measured = Self {
            rates: CASES.map(|_| Vec::new()),
            spent: CASES.map(|_| Vec::new()),
        };
        for round in 0..=number("ROUNDS", 12) {
            for (at, (path, _)) in CASES.iter().enumerate() {
                if *path == BY_HAND && env::args().any(|argument| argument == "sqlite") {
                    continue;
                }
                let before = spent();
                let (calls, took) = run(router, path, callers, &keys).await;
                let after = spent();
                // The first round opens connections and fills caches.
                if round > 0 {
                    #[expect(clippy::cast_precision_loss, reason = "a small number")]
                    let rate = calls as f64 / took.as_secs_f64();
                    measured.rates[at].push(rate);
                    measured.spent[at].push(after.since(before, calls));
                }
            }
        }
        measured
    }

    fn print(&self, has_server: bool) {
        for (at, (_, name)) in CASES.iter().enumerate() {
            if self.rates[at].is_empty() {
                continue;
            }
            let ratios = self.rates[at].iter().zip(&self.rates[0]);
            let ratios: Vec<_> = ratios.map(|(rate, bare)| rate / bare).collect();
            let [low, middle, high] = quartiles(ratios);
            print!("{name:<34} {middle:>5.2} ({low:.2} to {high:.2})");
            if has_server {
                let middle = |column: usize| {
                    let spent = self.spent[at].iter().map(|spent| spent[column]);
                    quartiles(spent.collect())[1]
                };
                print!(" {:>6.2} {:>6.0} {:>6.0}", middle(0), middle(1), middle(2));
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

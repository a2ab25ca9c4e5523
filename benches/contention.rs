//! Measures the gain of a second core, with one key and with many keys: `cargo bench --bench
//! contention`.
//!
//! Prints the throughput on all cores as a ratio to one core. Each path is measured in many rounds of
//! one run (`ROUNDS`, 40). The ratio of bare axum shows what the machine can give. Each thread reads
//! the clock itself when it begins and when it ends. Without a free core, another thread would read the
//! clock too late.

mod measure;

use std::sync::Barrier;
use std::thread;
use std::time::Instant;

use axum::http::StatusCode;
use axum::routing::post;
use axum::{Json, Router};
use axum_idem::{Idempotency, idempotent};
use measure::contenders::{
    Contender, NO_KEY, Order, SAME_KEY, Trade, bare, body, book, protected, wide_store,
};
use measure::{float, line, quartiles, setting, shown};

/// Requests of one thread in one round, enough for several time slices of the scheduler.
const REQUESTS: u64 = 5_000;

/// The number of records that all threads replay.
const RECORDS: u64 = 10_000;

/// All threads send the same new key at once. One thread runs the handler, and the others wait and
/// replay.
#[idempotent(scope = token, in_flight = wait("5s"))]
async fn waited_for(Json(order): Json<Order>) -> (StatusCode, Json<Trade>) {
    book(order)
}

fn waiting() -> Router {
    let idem = Idempotency::builder().store(wide_store()).build();
    Router::new().route("/trades", post(waited_for)).layer(idem)
}

struct Contended {
    name: &'static str,
    endpoint: Contender,
    /// The number of the `n`th request of a thread. Equal numbers have equal keys.
    nth: fn(thread: u64, n: u64) -> u64,
    begun: u64,
}

fn main() {
    let cores = thread::available_parallelism().map_or(2, usize::from);
    let body = body(200);
    let mut contended = contended(&body);
    let mut gains: Vec<Vec<f64>> = contended.iter().map(|_| Vec::new()).collect();
    for _ in 0..setting("ROUNDS", 40) {
        for (contended, gains) in contended.iter_mut().zip(&mut gains) {
            let alone = contended.throughput(1, &body);
            gains.push(contended.throughput(cores, &body) / alone);
        }
    }
    println!("throughput of {cores} threads on {cores} cores, ratio to one thread");
    for (contended, gains) in contended.iter().zip(gains) {
        line(contended.name, &[shown(quartiles(gains))]);
    }
}

fn contended(body: &str) -> Vec<Contended> {
    let store = wide_store();
    let ours = |name, key| Contender::new(name, protected(store.clone()), key);
    let apart = |thread, n| (thread + 1) << 36 | n;
    let contended = |name, endpoint, nth: fn(u64, u64) -> u64| Contended {
        name,
        endpoint,
        nth,
        begun: 0,
    };
    let all = vec![
        contended("bare", Contender::new("bare", bare(), Some), apart),
        contended("no key", ours("no key", NO_KEY), apart),
        contended("first sight, own keys", ours("own", Some), apart),
        contended(
            "one new key for all",
            Contender::new("race", waiting(), Some),
            |_, n| n,
        ),
        contended("replay, one key", ours("one", SAME_KEY), apart),
        contended("replay, many keys", ours("many", Some), |_, n| n % RECORDS),
    ];
    runtime().block_on(async {
        for contended in &all[4..] {
            for n in 0..RECORDS {
                let request = contended.endpoint.request(n, body);
                contended.endpoint.serve(request).await;
            }
        }
    });
    all
}

impl Contended {
    /// Returns the requests per second of this many threads, each with its own tokio runtime.
    fn throughput(&mut self, threads: usize, body: &str) -> f64 {
        let barrier = Barrier::new(threads);
        let (this, barrier) = (&*self, &barrier);
        let times: Vec<(Instant, Instant)> = thread::scope(|scope| {
            let threads: Vec<_> = (0..)
                .take(threads)
                .map(|thread| {
                    scope.spawn(move || {
                        let numbers = this.begun..this.begun + REQUESTS;
                        let numbers = numbers.map(|n| (this.nth)(thread, n));
                        let requests = this.endpoint.requests(numbers, body);
                        runtime().block_on(async {
                            barrier.wait();
                            let begun = Instant::now();
                            for request in requests {
                                this.endpoint.serve(request).await;
                            }
                            (begun, Instant::now())
                        })
                    })
                })
                .collect();
            let threads = threads.into_iter();
            threads
                .map(|thread| thread.join().expect("the server runs"))
                .collect()
        });
        let begun = times.iter().map(|(begun, _)| *begun).min();
        let ended = times.iter().map(|(_, ended)| *ended).max();
        let (begun, ended) = begun.zip(ended).expect("a thread");
        let seconds = (ended - begun).as_secs_f64();
        self.begun += REQUESTS;
        #[expect(clippy::cast_precision_loss, reason = "a small number")]
        let threads = threads as f64;
        threads * float(REQUESTS) / seconds
    }
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a tokio runtime")
}

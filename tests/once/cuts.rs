//! Cuts a request off at every wait, while its handler commits.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::post;
use axum_idem::{Attempt, Idempotency, idempotent};
use tokio::runtime::{Builder, Runtime};

use crate::bank::{Bank, LEASE, Paid, lapse, routes, store};
use crate::servers::postgres::PostgresServer;
use crate::support::exchange;

/// More than a request has.
const MOST_WAITS: usize = 20;

/// How a request is cut off.
#[derive(Clone, Copy, Debug)]
enum Cut {
    /// The future of the request is dropped. Its background tasks continue.
    Disconnect,
    /// The tokio runtime is dropped, and then the future of the request.
    Shutdown,
}

/// Resolves to `None` when `future` is pending for the `waits`th time.
struct Waiting<'f, F> {
    future: &'f mut Pin<Box<F>>,
    waits: usize,
}

impl<F: Future> Future for Waiting<'_, F> {
    type Output = Option<F::Output>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        if let Poll::Ready(output) = self.future.as_mut().poll(cx) {
            return Poll::Ready(Some(output));
        }
        self.waits -= 1;
        if self.waits == 0 {
            Poll::Ready(None)
        } else {
            Poll::Pending
        }
    }
}

/// Commits itself, after the record.
#[idempotent(scope = token, transactional)]
async fn recorded(State(bank): State<Bank>, attempt: Attempt, body: String) -> Paid {
    let mut tx = bank.begin().await?;
    let run = format!("{body} {}", bank.runs.count());
    Bank::pay(&mut tx, &run).await?;
    let response = attempt.record_in(&mut *tx, (StatusCode::CREATED, run));
    let response = response.await?;
    tx.commit().await?;
    Ok(response)
}

fn process() -> Runtime {
    let mut builder = Builder::new_current_thread();
    builder.enable_all().build().expect("a tokio runtime")
}

async fn open(url: &str) -> (Bank, Router) {
    let bank = Bank::open(url).await;
    let idem = Idempotency::builder().store(store(url).await).lease(LEASE);
    let router = routes().route("/recorded", post(recorded));
    let router = router.layer(idem.build()).with_state(bank.clone());
    (bank, router)
}

/// Returns whether the request was cut off. It may also finish before.
fn play(postgres: &PostgresServer, path: &str, cut: Cut, waits: usize) -> bool {
    let url = postgres.url();
    let first = process();
    let (bank, router) = first.block_on(open(&url));
    let request = || crate::support::post(path, "k", "x");
    let mut answer = Box::pin(exchange(router.clone(), request()));
    let waiting = Waiting {
        future: &mut answer,
        waits,
    };
    let finished = first.block_on(waiting);
    let (process, bank, router) = match cut {
        Cut::Disconnect => {
            first.block_on(async { drop(answer) });
            (first, bank, router)
        }
        Cut::Shutdown => {
            drop(first);
            let second = self::process();
            // sqlx needs some runtime to drop its connections.
            let (bank, router) = second.block_on(async {
                drop((answer, bank, router));
                open(&url).await
            });
            (second, bank, router)
        }
    };
    let retry = process.block_on(async {
        loop {
            let retry = exchange(router.clone(), request()).await;
            if retry.status == StatusCode::CREATED {
                break retry;
            }
            // The run may continue in the background. Otherwise its lease is over soon.
            tokio::time::sleep(Duration::from_millis(5)).await;
            if matches!(cut, Cut::Shutdown) {
                lapse(postgres);
            }
        }
    });
    let payments = process.block_on(bank.payments());
    assert_eq!(
        payments,
        [retry.text()],
        "{path}, {cut:?} after {waits} waits"
    );
    if let Some(first) = &finished {
        assert_eq!(first.body, retry.body);
        assert!(retry.is_replay());
    }
    postgres.command("TRUNCATE idem_records, payments");
    finished.is_none()
}

#[test]
fn a_request_that_is_cut_off_anywhere_has_one_effect() {
    let postgres = PostgresServer::start();
    let mut all = 0;
    for path in ["/pay", "/plain", "/recorded"] {
        for cut in [Cut::Disconnect, Cut::Shutdown] {
            let was_cut = |waits: &usize| play(&postgres, path, cut, *waits);
            let times = (1..MOST_WAITS).filter(was_cut).count();
            assert!((1..MOST_WAITS - 1).contains(&times), "{times} cuts");
            println!("{path}: {times} cuts by {cut:?}");
            all += times;
        }
    }
    // Usually 30 to 70. A reply of the server may have arrived before it is waited for.
    assert!(all >= 12, "{all} cuts");
}

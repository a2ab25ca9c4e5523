//! Cuts the first request off at every wait, on Redis and PostgreSQL. The clocks are real, so the
//! leases are short.

use std::future::Future;
use std::time::Duration;

use axum_idem::store::{PostgresStore, RedisStore, Store};
use tokio::runtime::{Builder, Runtime};
use tokio::time::sleep;

use crate::cut::{Cut, Waiting};
use crate::shop::{Answer, Effects, Shop};
use crate::ways::BODY;
use test_support::servers::postgres::PostgresServer;
use test_support::servers::redis::RedisServer;

const LEASE: Duration = Duration::from_millis(400);
const MOST_WAITS: usize = 50;

#[test]
fn promises_hold_on_redis_when_a_request_is_cut_off() {
    let server = RedisServer::start();
    let connect = || RedisStore::connect(server.url());
    cut_everywhere(
        async || connect().await.expect("Redis accepts connections"),
        || {
            server.command(&["FLUSHALL"]);
        },
    );
}

#[test]
fn promises_hold_on_postgres_when_a_request_is_cut_off() {
    let server = PostgresServer::start();
    let connect = || PostgresStore::connect(server.url());
    cut_everywhere(
        async || connect().await.expect("PostgreSQL accepts connections"),
        || {
            server.command("TRUNCATE idem_records");
        },
    );
}

fn process() -> Runtime {
    let mut builder = Builder::new_current_thread();
    builder.enable_all().build().expect("a tokio runtime")
}

/// Each process makes new connections. `clear` deletes all records between two cuts.
fn cut_everywhere<S: Store>(connect: impl AsyncFn() -> S, clear: impl Fn()) {
    let mut cuts = 0;
    for cut in Cut::ALL {
        let was_cut = |waits: &usize| {
            let was_cut = play(&connect, cut, *waits);
            clear();
            was_cut
        };
        let times = (1..MOST_WAITS).take_while(was_cut).count();
        assert!((4..MOST_WAITS - 1).contains(&times), "{times} waits");
        cuts += times;
    }
    println!("{cuts} cuts");
}

/// Returns whether the request was cut off. The request may also finish before the cut.
fn play<S: Store>(connect: &impl AsyncFn() -> S, cut: Cut, waits: usize) -> bool {
    let effects = Effects::default();
    let open = async || Shop::open(connect().await, LEASE, &effects);
    let first = process();
    let shop = first.block_on(open());
    let mut request = Box::pin(shop.clone().post("/order", BODY));
    let waiting = Waiting {
        future: &mut request,
        waits,
    };
    let answer = first.block_on(waiting);
    let (process, shop) = match cut {
        Cut::Disconnect => {
            first.block_on(async { drop(request) });
            (first, shop)
        }
        Cut::Shutdown => {
            drop(first);
            let second = process();
            // sqlx needs some tokio runtime to return its connections.
            let shop = second.block_on(async {
                drop(request);
                open().await
            });
            (second, shop)
        }
        Cut::Kill => {
            std::mem::forget((first, request));
            let second = process();
            let shop = second.block_on(open());
            (second, shop)
        }
    };
    let [retry, again] = process.block_on(async {
        let retry = until_settled(|| shop.clone().post("/order", BODY)).await;
        [retry, shop.clone().post("/order", BODY).await]
    });
    let what = format!("{cut:?} at wait {waits}: {retry:?}, {again:?}");
    assert_eq!(retry.status, 201, "{what}");
    assert!(again.is_replay && again.text == retry.text, "{what}");
    if let Some(told) = &answer {
        assert!(
            retry.is_replay && retry.text == told.text,
            "{told:?}, {what}"
        );
    }
    let most = 1 + usize::from(cut != Cut::Disconnect);
    let fences = effects.fences();
    assert!((1..=most).contains(&fences.len()), "{fences:?}, {what}");
    assert!(fences.is_sorted_by(|a, b| a < b), "{fences:?}, {what}");
    answer.is_none()
}

async fn until_settled<F: Future<Output = Answer>>(ask: impl Fn() -> F) -> Answer {
    for _ in 0..500 {
        let answer = ask().await;
        if answer.code.as_deref() != Some("idempotency_key_in_flight") {
            return answer;
        }
        sleep(LEASE / 20).await;
    }
    panic!("the key is still in flight");
}

//! Cuts the first request off at every wait, on Redis, PostgreSQL and SQLite: a request that is recorded, one whose
//! outcome is unknown, and one that hangs. The clocks are real, so the leases are short.

use std::future::Future;
use std::time::Duration;

use axum_idem::store::{PostgresStore, RedisStore, SqliteStore, Store};
use sqlx::ConnectOptions;
use sqlx::sqlite::SqliteConnectOptions;
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
    cut_every_scene(
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
    cut_every_scene(
        async || connect().await.expect("PostgreSQL accepts connections"),
        || {
            server.command("TRUNCATE idem_records");
        },
    );
}

#[test]
fn promises_hold_on_sqlite_when_a_request_is_cut_off() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("idem.db");
    let options = SqliteConnectOptions::new().filename(&path);
    cut_every_scene(
        async || SqliteStore::open(&path).await.expect("the file opens"),
        || {
            process().block_on(async {
                let mut connection = options.connect().await.expect("the file opens");
                let clear = sqlx::query("DELETE FROM idem_records").execute(&mut connection);
                clear.await.expect("it can be written");
            });
        },
    );
}

/// One endpoint.
#[derive(Clone, Copy)]
struct Scene {
    path: &'static str,
    /// The status of a response whose outcome is unknown. `None` when the response is recorded.
    unknown: Option<u16>,
}

const SCENES: [Scene; 3] = [
    Scene {
        path: "/order",
        unknown: None,
    },
    Scene {
        path: "/unknown-held",
        unknown: Some(202),
    },
    Scene {
        path: "/hangs-held",
        unknown: Some(504),
    },
];

fn process() -> Runtime {
    let mut builder = Builder::new_current_thread();
    builder.enable_all().build().expect("a tokio runtime")
}

/// The request that is recorded is also cut off with a sealed store.
fn cut_every_scene<S: Store>(connect: impl AsyncFn() -> S, clear: impl Fn()) {
    for scene in SCENES {
        cut_everywhere(scene, &connect, &clear);
    }
    #[cfg(feature = "seal")]
    {
        use axum_idem::store::{Keys, Sealed};
        let keys = || Keys::new().primary(1, [1; 32]);
        let connect = async || Sealed::around(connect().await, keys());
        cut_everywhere(SCENES[0], connect, &clear);
    }
}

/// Each process makes new connections. `clear` deletes all records between two cuts.
fn cut_everywhere<S: Store>(scene: Scene, connect: impl AsyncFn() -> S, clear: impl Fn()) {
    let mut cuts = 0;
    for cut in Cut::ALL {
        let was_cut = |waits: &usize| {
            let was_cut = play(scene, &connect, cut, *waits);
            clear();
            was_cut
        };
        let times = (1..MOST_WAITS).take_while(was_cut).count();
        assert!((4..MOST_WAITS - 1).contains(&times), "{times} waits");
        cuts += times;
    }
    println!("{}: {cuts} cuts", scene.path);
}

/// Returns whether the request was cut off. The request may also finish before the cut.
fn play<S: Store>(
    Scene { path, unknown }: Scene,
    connect: &impl AsyncFn() -> S,
    cut: Cut,
    waits: usize,
) -> bool {
    let effects = Effects::default();
    let open = async || Shop::open(connect().await, LEASE, &effects);
    let first = process();
    let shop = first.block_on(open());
    let mut request = Box::pin(shop.clone().post(path, BODY));
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
        let retry = until_settled(|| shop.clone().post(path, BODY)).await;
        [retry, shop.clone().post(path, BODY).await]
    });
    let what = format!("{path}, {cut:?} at wait {waits}: {retry:?}, {again:?}");
    let fences = effects.fences();
    if let Some(status) = unknown {
        let is_held = |answer: &Answer| {
            answer.code.as_deref() == Some("idempotency_outcome_unknown") && answer.status == 409
        };
        // The first request may have been cut off before its handler began.
        assert!(is_held(&retry) || retry.status == status, "{what}");
        assert!(is_held(&again), "{what}");
        if let Some(told) = &answer {
            assert!(told.status == status && is_held(&retry), "{told:?}, {what}");
        }
        // A process that dies may leave the key unknown before the effect.
        assert!(fences.len() <= 1, "{fences:?}, {what}");
        return answer.is_none();
    }
    assert_eq!(retry.status, 201, "{what}");
    assert!(again.is_replay && again.text == retry.text, "{what}");
    if let Some(told) = &answer {
        assert!(
            retry.is_replay && retry.text == told.text,
            "{told:?}, {what}"
        );
    }
    let most = 1 + usize::from(cut != Cut::Disconnect);
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

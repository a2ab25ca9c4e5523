//! The histories of all stores of this crate.

use std::sync::Arc;
use std::time::Duration;

use idem_runtime::store::{MemoryStore, NearCache, Store};
use idem_runtime::testing::{Fault, FaultMix, FaultStore};

use crate::history::{Recorder, Short, TRANSITIONS, run_with};

/// The first seed and the number of seeds, from the environment.
fn seeds(transitions: usize) -> (u64, usize) {
    let number = |name| std::env::var(name).ok()?.parse::<u64>().ok();
    if let Some(seed) = number("IDEM_SEED") {
        return (seed, 1);
    }
    let wanted = number("IDEM_TRANSITIONS").and_then(|wanted| usize::try_from(wanted).ok());
    let histories = wanted.unwrap_or(transitions).div_ceil(TRANSITIONS);
    (fastrand::u64(..1 << 48), histories)
}

/// Runs histories on `store` until there are enough transitions. `transitions` is the number in CI.
async fn linearizable(name: &str, store: impl Store, short: Short, transitions: usize) {
    linearizable_with(name, store, None, short, transitions).await;
}

/// Like `linearizable`, with transactions.
async fn linearizable_with(
    name: &str,
    store: impl Store,
    recorder: Option<Recorder>,
    short: Short,
    transitions: usize,
) {
    let store: Arc<dyn Store> = Arc::new(store);
    let (first, histories) = seeds(transitions);
    for seed in (first..).take(histories) {
        let history = run_with(store.clone(), recorder.clone(), short, seed).await;
        assert!(
            history.failures.is_empty(),
            "{name}: seed {seed}: {:?}",
            history.failures
        );
        history
            .check()
            .unwrap_or_else(|why| panic!("{name}: {why}"));
    }
    println!(
        "{name}: {} transitions in {histories} histories from seed {first}",
        histories * TRANSITIONS
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 6)]
async fn memory_is_linearizable() {
    let store = MemoryStore::default();
    linearizable("memory", store, Short::HardlyAnything, 60_000).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 6)]
async fn a_near_cache_over_memory_is_linearizable() {
    let store = NearCache::new(MemoryStore::default());
    linearizable("near memory", store, Short::HardlyAnything, 60_000).await;
}

/// With a near cache on either side.
#[cfg(feature = "seal")]
#[tokio::test(flavor = "multi_thread", worker_threads = 6)]
async fn a_sealed_store_over_memory_is_linearizable() {
    use idem_runtime::store::{Keys, Sealed};
    let keys = || Keys::new().primary(1, [1; 32]);
    let inside = Sealed::around(NearCache::new(MemoryStore::default()), keys());
    linearizable("sealed near memory", inside, Short::HardlyAnything, 20_000).await;
    let outside = NearCache::new(Sealed::around(MemoryStore::default(), keys()));
    linearizable("near sealed memory", outside, Short::HardlyAnything, 20_000).await;
}

#[cfg(feature = "redis")]
mod redis {
    use idem_runtime::store::RedisStore;

    use super::*;
    use test_support::servers::redis::RedisServer;

    async fn connect(server: &RedisServer) -> RedisStore {
        let builder = RedisStore::builder().url(server.url());
        let store = builder.timeout(Duration::from_secs(30)).connect().await;
        store.expect("redis is there")
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 6)]
    async fn redis_is_linearizable() {
        let server = RedisServer::start();
        let store = connect(&server).await;
        linearizable("redis", store, Short::OneMillisecond, 6_000).await;
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 6)]
    async fn a_near_cache_over_redis_is_linearizable() {
        let server = RedisServer::start();
        let store = NearCache::new(connect(&server).await);
        linearizable("near redis", store, Short::OneMillisecond, 6_000).await;
    }

    #[cfg(feature = "seal")]
    #[tokio::test(flavor = "multi_thread", worker_threads = 6)]
    async fn a_sealed_store_in_redis_is_linearizable() {
        use idem_runtime::store::{Keys, Sealed};
        let server = RedisServer::start();
        let keys = Keys::new().primary(1, [1; 32]);
        let store = Sealed::around(connect(&server).await, keys);
        linearizable("sealed redis", store, Short::OneMillisecond, 6_000).await;
    }
}

#[cfg(feature = "postgres")]
#[tokio::test(flavor = "multi_thread", worker_threads = 6)]
async fn postgres_is_linearizable() {
    use idem_runtime::store::PostgresStore;
    let server = test_support::servers::postgres::PostgresServer::start();
    let builder = PostgresStore::builder().url(server.url());
    let store = builder.timeout(Duration::from_secs(30)).connect().await;
    let store = store.expect("postgres is there");
    linearizable("postgres", store, Short::OneMillisecond, 4_500).await;
}

/// With one connection, callers who meet share a transaction.
#[cfg(feature = "postgres")]
#[tokio::test(flavor = "multi_thread", worker_threads = 6)]
async fn postgres_in_batches_is_linearizable() {
    use idem_runtime::store::PostgresStore;
    let server = test_support::servers::postgres::PostgresServer::start();
    let builder = PostgresStore::builder()
        .url(server.url())
        .max_connections(1);
    let store = builder.timeout(Duration::from_secs(30)).connect().await;
    let store = store.expect("postgres is there");
    linearizable("postgres in batches", store, Short::OneMillisecond, 4_500).await;
}

/// Handlers record in transactions of their own, beside attempts that complete.
#[cfg(feature = "postgres")]
#[tokio::test(flavor = "multi_thread", worker_threads = 6)]
async fn postgres_with_transactions_is_linearizable() {
    use idem_runtime::store::{Bind, PostgresStore};
    use sqlx::postgres::PgPool;

    use crate::history::Commit;

    // A claim reads the clock before its commit. A read that comes in between may find that the earlier claim has
    // expired, so the commits have to be quick.
    let server = test_support::servers::postgres::PostgresServer::with(&["fsync=off"]);
    let builder = PostgresStore::builder().url(server.url());
    let store = builder.timeout(Duration::from_secs(30)).connect().await;
    let store = store.expect("postgres is there");
    let pool = PgPool::connect(&server.url()).await;
    let pool = pool.expect("postgres is there");
    let recorder: Recorder = Arc::new(move |statement| {
        let pool = pool.clone();
        Box::pin(async move {
            let mut transaction = pool.begin().await.expect("postgres is there");
            let mut query = sqlx::query(sqlx::AssertSqlSafe(statement.sql().to_owned()));
            for bind in statement.binds() {
                query = match bind {
                    Bind::Bytes(bytes) => query.bind(bytes.to_vec()),
                    Bind::Integer(number) => query.bind(*number),
                    _ => unreachable!("a bind of PostgreSQL"),
                };
            }
            if let Err(error) = query.execute(&mut *transaction).await {
                let code = error.as_database_error();
                let code = code.and_then(sqlx::error::DatabaseError::code);
                let refusals = ["IDM01", "IDM02", "23505"];
                assert!(
                    code.is_some_and(|code| refusals.contains(&&*code)),
                    "{error}"
                );
                return None;
            }
            let commit: Commit = Box::pin(async move {
                transaction.commit().await.expect("nothing is deferred");
            });
            Some(commit)
        })
    });
    linearizable_with(
        "postgres with transactions",
        store,
        Some(recorder),
        Short::OneMillisecond,
        4_500,
    )
    .await;
}

#[cfg(feature = "sqlite")]
#[tokio::test(flavor = "multi_thread", worker_threads = 6)]
async fn sqlite_is_linearizable() {
    use idem_runtime::store::SqliteStore;
    let folder = tempfile::tempdir().expect("a folder");
    let builder = SqliteStore::builder().path(folder.path().join("idem.db"));
    let store = builder.busy_timeout(Duration::from_secs(30)).open().await;
    let store = store.expect("the file opens");
    linearizable("sqlite", store, Short::OneMillisecond, 4_500).await;
}

/// A lost response says nothing about the effect, which may also happen later.
#[tokio::test(start_paused = true)]
async fn a_memory_store_with_faults_is_linearizable() {
    let (first, histories) = seeds(6_000);
    let mut lost = 0;
    for seed in (first..).take(histories) {
        let store = FaultStore::new(MemoryStore::default());
        let mix = FaultMix::seeded(seed)
            .rate_of_all(Fault::ErrBefore, 0.02)
            .rate_of_all(Fault::ErrAfter, 0.02)
            .rate_of_all(Fault::Delay(Duration::from_millis(1)), 0.1);
        store.mix(mix);
        let history = run_with(Arc::new(store), None, Short::HardlyAnything, seed).await;
        lost += history.failures.len();
        history.check().unwrap_or_else(|why| panic!("{why}"));
    }
    assert!(lost > 0 || histories == 1);
    println!("with faults: {lost} responses lost in {histories} histories from seed {first}");
}

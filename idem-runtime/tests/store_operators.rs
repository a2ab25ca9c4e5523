//! What an operator's tools need from each store: checks of the engine, removal of expired entries, and events.
#![cfg(all(
    feature = "postgres",
    feature = "redis",
    feature = "sqlite",
    feature = "testing"
))]

use std::pin::pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use http::StatusCode;
use idem_runtime::observe::Observer;
use idem_runtime::store::{
    Claim, Claimed, Finding, Holder, MemoryStore, NearCache, OnFull, PostgresStore, Record,
    RedisStore, Settled, Severity, SqliteStore, Store, StoreError,
};
use idem_runtime::{Fingerprint, RecordId};
use sqlx::Connection as _;
use test_support::listing::a_replay_has_the_trace;
use test_support::servers::eventually_async;
use test_support::servers::postgres::PostgresServer;
use test_support::servers::redis::RedisServer;

const SHORT: Duration = Duration::from_millis(1);
const PATIENCE: Duration = Duration::from_secs(20);

fn found(findings: &[Finding], subject: &str) -> Severity {
    let finding = findings.iter().find(|it| it.subject == subject);
    finding
        .unwrap_or_else(|| panic!("no {subject} in {findings:?}"))
        .severity
}

/// Makes records that expire at once.
async fn expired(store: &dyn Store, number: u8) {
    let fingerprint = Fingerprint::from_bytes([1; 32]);
    for n in 0..number {
        let id = RecordId::from_bytes([n; 32]);
        let claim = Claim::new(id, fingerprint, PATIENCE, PATIENCE);
        let owner = claim.owner;
        let Ok(Claimed::Fresh { fence, .. }) = store.claim(claim).await else {
            panic!("nobody holds the record");
        };
        let record = Record::not_kept(fingerprint, StatusCode::OK);
        let settled = store.complete(Holder { id, owner, fence }, record, SHORT);
        assert_eq!(settled.await.expect("it is settled"), Settled::Done);
    }
    tokio::time::sleep(SHORT * 20).await;
}

async fn removed(store: &dyn Store) -> u64 {
    let mut removed = 0;
    loop {
        match store.remove_expired().await.expect("it removes") {
            0 => return removed,
            batch => removed += batch,
        }
    }
}

async fn sqlite(folder: &tempfile::TempDir) -> SqliteStore {
    let builder = SqliteStore::builder().path(folder.path().join("idem.db"));
    let store = builder.no_sweeper().busy_timeout(PATIENCE).open().await;
    store.expect("the file opens")
}

async fn redis(server: &RedisServer) -> RedisStore {
    let builder = RedisStore::builder().url(server.url()).timeout(PATIENCE);
    builder.connect().await.expect("redis is there")
}

async fn postgres(server: &PostgresServer) -> PostgresStore {
    let builder = PostgresStore::builder().url(server.url()).no_sweeper();
    let store = builder.timeout(PATIENCE).connect().await;
    store.expect("postgres is there")
}

#[tokio::test]
async fn a_memory_store_warns_that_its_records_end_with_the_process() {
    let store = NearCache::new(MemoryStore::default());
    a_replay_has_the_trace(&store).await;
    let findings = store.diagnose().await.expect("it is checked");
    assert_eq!(found(&findings, "durability"), Severity::Warning);
    assert_eq!(found(&findings, "eviction"), Severity::Good);
    assert_eq!(store.name(), "memory");
    let evicting = MemoryStore::builder().on_full(OnFull::EvictOldest).build();
    let findings = evicting.diagnose().await.expect("it is checked");
    assert_eq!(found(&findings, "eviction"), Severity::Warning);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_sqlite_store_is_checked_and_its_expired_rows_are_removed() {
    let folder = tempfile::tempdir().expect("a folder");
    let store = sqlite(&folder).await;
    a_replay_has_the_trace(&store).await;
    let findings = store.diagnose().await.expect("it is checked");
    for subject in [
        "version",
        "journal",
        "durability",
        "integrity",
        "clock",
        "room",
    ] {
        assert_eq!(found(&findings, subject), Severity::Good, "{subject}");
    }
    expired(&store, 3).await;
    assert_eq!(removed(&store).await, 3);
    assert_eq!(store.name(), "sqlite");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redis_server_without_a_log_is_a_warning() {
    let server = RedisServer::with(&["--maxmemory", "100mb", "--appendonly", "no"]);
    let store = redis(&server).await;
    a_replay_has_the_trace(&store).await;
    let findings = store.diagnose().await.expect("it is checked");
    for (subject, severity) in [
        ("version", Severity::Good),
        ("eviction", Severity::Good),
        ("room", Severity::Good),
        ("durability", Severity::Warning),
        ("replication", Severity::Good),
        ("clock", Severity::Good),
    ] {
        assert_eq!(found(&findings, subject), severity, "{subject}");
    }
    assert_eq!(removed(&store).await, 0);
    assert_eq!(store.name(), "redis");
}

/// The store is connected already when somebody changes the server.
#[tokio::test(flavor = "multi_thread")]
async fn a_redis_server_that_evicts_is_found() {
    let server = RedisServer::with(&["--appendonly", "yes", "--appendfsync", "always"]);
    let store = redis(&server).await;
    let findings = store.diagnose().await.expect("it is checked");
    assert_eq!(found(&findings, "durability"), Severity::Good);
    assert_eq!(found(&findings, "room"), Severity::Warning);
    server.command(&["CONFIG", "SET", "maxmemory-policy", "allkeys-lru"]);
    match store.diagnose().await {
        Ok(findings) => assert_eq!(found(&findings, "eviction"), Severity::Bad),
        Err(error) => assert!(matches!(error, StoreError::Unfit(_)), "{error:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_postgres_server_is_checked_and_its_expired_rows_are_removed() {
    let server = PostgresServer::start();
    let store = postgres(&server).await;
    a_replay_has_the_trace(&store).await;
    let findings = store.diagnose().await.expect("it is checked");
    for subject in ["version", "replication", "clock", "vacuum", "connections"] {
        assert_eq!(found(&findings, subject), Severity::Good, "{subject}");
    }
    let is_superuser = server.command("SELECT rolsuper FROM pg_roles WHERE rolname = current_user");
    let expected = if is_superuser.contains('t') {
        Severity::Warning
    } else {
        Severity::Good
    };
    assert_eq!(found(&findings, "rights"), expected);
    let fsync = server.command("SHOW fsync");
    let expected = if fsync.contains("off") {
        Severity::Bad
    } else {
        Severity::Good
    };
    assert_eq!(found(&findings, "durability"), expected);
    expired(&store, 3).await;
    assert_eq!(removed(&store).await, 3);
    assert_eq!(store.name(), "postgres");
}

/// Adds up the reports.
#[derive(Default)]
struct Sums {
    swept: AtomicU64,
    waits: Mutex<Vec<Duration>>,
    full: Mutex<Option<(u64, u64)>>,
}

impl Observer for Sums {
    fn swept(&self, _: &'static str, records: u64) {
        self.swept.fetch_add(records, Ordering::Relaxed);
    }

    fn connection_awaited(&self, store: &'static str, waited: Duration) {
        assert!(["postgres", "sqlite"].contains(&store), "{store}");
        self.waits.lock().expect("no panic").push(waited);
    }

    fn store_filled(&self, _: &'static str, bytes: u64, max_bytes: u64) {
        *self.full.lock().expect("no panic") = Some((bytes, max_bytes));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn sqlite_reports_removed_rows_and_how_full_its_file_is() {
    let folder = tempfile::tempdir().expect("a folder");
    let builder = SqliteStore::builder().path(folder.path().join("idem.db"));
    let builder = builder.sweep_every(SHORT * 50).max_bytes(1 << 30);
    let store = builder.open().await.expect("the file opens");
    let sums = Arc::new(Sums::default());
    store.observe(sums.clone());
    expired(&store, 3).await;
    eventually_async("the sweeper", async || {
        (sums.swept.load(Ordering::Relaxed) == 3).then_some(())
    })
    .await;
    let full = sums.full.lock().expect("no panic").expect("it is reported");
    assert!(
        full.0 > 0 && full.0 < full.1 && full.1 == 1 << 30,
        "{full:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn postgres_reports_waits_for_a_connection_and_removed_rows() {
    let server = PostgresServer::start();
    let builder = PostgresStore::builder()
        .url(server.url())
        .max_connections(1);
    let builder = builder.timeout(PATIENCE).sweep_every(SHORT * 500);
    let store = builder.connect().await.expect("postgres is there");
    let sums = Arc::new(Sums::default());
    store.observe(sums.clone());
    expired(&store, 3).await;
    // The only connection waits for this lock. Otherwise a quick server could reply before the next look-up begins.
    let rival = sqlx::PgConnection::connect(&server.url()).await;
    let mut rival = rival.expect("postgres is there");
    let mut lock = rival.begin().await.expect("begun");
    let statement = sqlx::query("LOCK TABLE idem_records");
    statement.execute(&mut *lock).await.expect("locked");
    let looks = (0..20).map(|n| store.look_up(RecordId::from_bytes([n; 32])));
    let mut looks = pin!(futures_util::future::join_all(looks));
    assert!(futures_util::poll!(&mut looks).is_pending());
    lock.rollback().await.expect("unlocked");
    for look in looks.await {
        look.expect("it looks");
    }
    let waits = sums.waits.lock().expect("no panic").clone();
    assert!(waits.len() >= 10, "{waits:?}");
    assert!(waits.iter().any(|wait| !wait.is_zero()));
    eventually_async("the sweeper", async || {
        (sums.swept.load(Ordering::Relaxed) == 3).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn sqlite_reports_waits_for_a_connection_that_reads() {
    let folder = tempfile::tempdir().expect("a folder");
    let store = sqlite(&folder).await;
    let sums = Arc::new(Sums::default());
    store.observe(sums.clone());
    let looks = (0..20).map(|n| store.look_up(RecordId::from_bytes([n; 32])));
    for look in futures_util::future::join_all(looks).await {
        look.expect("it looks");
    }
    let waits = sums.waits.lock().expect("no panic").clone();
    assert!(waits.len() >= 10, "{waits:?}");
    assert!(waits.iter().any(|wait| !wait.is_zero()));
}

/// How often the server was asked for `INFO`. This look counts as well.
fn infos(server: &RedisServer) -> u64 {
    let stats = server.info("cmdstat_info").expect("the server counts");
    let calls = stats
        .strip_prefix("calls=")
        .and_then(|it| it.split(',').next());
    calls.expect("calls").parse().expect("a number")
}

#[tokio::test(flavor = "multi_thread")]
async fn redis_reports_how_full_it_is_if_it_has_a_limit() {
    let limited = RedisServer::with(&["--maxmemory", "64mb"]);
    let store = redis(&limited).await;
    let sums = Arc::new(Sums::default());
    store.observe(sums.clone());
    expired(&store, 1).await;
    let (used, max) =
        eventually_async("a report", async || *sums.full.lock().expect("no panic")).await;
    assert!(used > 0 && used < max && max == 64 << 20, "{used} {max}");
    let asked = infos(&limited);
    expired(&store, 20).await;
    assert_eq!(infos(&limited), asked + 1, "once in ten seconds");

    let unlimited = RedisServer::start();
    let store = redis(&unlimited).await;
    let sums = Arc::new(Sums::default());
    store.observe(sums.clone());
    let mut asked = infos(&unlimited);
    expired(&store, 1).await;
    eventually_async("the server is asked", async || {
        asked += 1;
        (infos(&unlimited) > asked).then_some(())
    })
    .await;
    expired(&store, 1).await;
    assert!(sums.full.lock().expect("no panic").is_none());
}

//! The PostgreSQL store: its table, its sweeper, and servers that fail.
#![cfg(feature = "postgres")]

use test_support::servers;

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use idem_runtime::store::{
    Claim, Claimed, DecodeError, Entry, PostgresStore, Settled, Store, StoreError,
};
use idem_runtime::{RecordId, Scope};
use sqlx::PgPool;
use sqlx::postgres::PgPoolOptions;
use tokio::sync::Barrier;

use servers::asking::{FINGERPRINT, HOUR, claim, id, record, replay, win};
use servers::eventually_async;
use servers::postgres::PostgresServer;

const SHORT: Duration = Duration::from_millis(1);

async fn connect(server: &PostgresServer) -> PostgresStore {
    let builder = PostgresStore::builder().url(server.url()).no_sweeper();
    let store = builder.timeout(Duration::from_secs(20)).connect().await;
    store.expect("postgres is there")
}

async fn pool(server: &PostgresServer) -> PgPool {
    let pool = PgPool::connect(&server.url()).await;
    pool.expect("postgres is there")
}

/// Two stores: the first with a long timeout, because a test machine may be busy, and the second
/// with a short one.
async fn of_two_minds(pool: &PgPool) -> [PostgresStore; 2] {
    let connect = async |timeout| {
        let builder = PostgresStore::builder().pool(pool.clone()).no_sweeper();
        let store = builder.timeout(timeout).connect().await;
        store.expect("postgres is there")
    };
    let [long, short] = [Duration::from_secs(20), Duration::from_millis(300)];
    [connect(long).await, connect(short).await]
}

/// Claims and completes.
async fn keep(store: &PostgresStore, name: &str, ttl: Duration) {
    let holder = win(store, claim(name)).await;
    let completed = store.complete(holder, record(name.as_bytes()), ttl).await;
    assert_eq!(completed.expect("postgres is there"), Settled::Done);
}

#[tokio::test(flavor = "multi_thread")]
async fn eight_processes_create_the_table_at_once() {
    let server = PostgresServer::start();
    for schema in ["first", "second", "third"] {
        let start = Arc::new(Barrier::new(8));
        let processes: Vec<_> = (0..8)
            .map(|_| {
                let (start, url) = (start.clone(), server.url());
                tokio::spawn(async move {
                    let pool = PgPool::connect(&url).await.expect("postgres is there");
                    start.wait().await;
                    let builder = PostgresStore::builder().pool(pool).schema(schema);
                    let store = builder.connect().await.expect("it gets its table");
                    store.claim(claim("k")).await.expect("it has its table")
                })
            })
            .collect();
        let mut won = 0;
        for process in processes {
            won += usize::from(matches!(
                process.await.expect("no panic"),
                Claimed::Fresh { .. }
            ));
        }
        assert_eq!(won, 1);
    }
}

#[tokio::test]
async fn an_existing_table_needs_no_right_to_create() {
    let server = PostgresServer::start();
    let owner = PostgresStore::builder().url(server.url()).schema("idem");
    owner.connect().await.expect("it may create");
    server.command("CREATE ROLE guest LOGIN");
    server.command("GRANT USAGE ON SCHEMA idem TO guest");
    server.command("GRANT SELECT, INSERT, UPDATE, DELETE ON idem.idem_records TO guest");
    let url = server.url().replace("user=desk", "user=guest");
    let guest = PostgresStore::builder().url(url).schema("idem");
    let store = guest.connect().await.expect("it need not create");
    keep(&store, "k", HOUR).await;
    assert_eq!(replay(&store, "k").await, record(b"k"));
}

/// The situation after a version of the library without this function, or with another function.
#[tokio::test]
async fn a_missing_function_is_created_or_reported_at_connect() {
    let server = PostgresServer::start();
    let url = server.url();
    let owner = PostgresStore::builder().url(&url).schema("idem");
    let store = owner.clone().connect().await.expect("it may create");
    keep(&store, "k", HOUR).await;
    server.command("DROP FUNCTION idem.idem_records_claim_v5");
    server.command("CREATE ROLE guest LOGIN");
    server.command("GRANT USAGE ON SCHEMA idem TO guest");
    server.command("GRANT SELECT, INSERT, UPDATE, DELETE ON idem.idem_records TO guest");
    let guest = PostgresStore::builder().schema("idem");
    let error = guest.url(url.replace("user=desk", "user=guest"));
    let error = error.connect().await.err();
    assert!(
        matches!(error, Some(StoreError::Unavailable(_))),
        "{error:?}"
    );
    let store = owner.connect().await.expect("it may create");
    assert_eq!(replay(&store, "k").await, record(b"k"));
}

#[tokio::test]
async fn an_invalid_name_is_refused_before_connecting() {
    for name in ["x; drop table y", "x\"", "", "1x"] {
        let builder = PostgresStore::builder().url("postgres://127.0.0.1:1/");
        let error = builder.clone().table(name).connect().await.err();
        assert!(matches!(error, Some(StoreError::Unfit(_))), "{error:?}");
        let error = builder.schema(name).connect().await.err();
        assert!(matches!(error, Some(StoreError::Unfit(_))), "{error:?}");
    }
}

#[tokio::test]
async fn the_sweeper_removes_only_expired_rows() {
    let server = PostgresServer::start();
    let store = connect(&server).await;
    for number in 0..10 {
        keep(&store, &format!("expired-{number}"), SHORT).await;
        keep(&store, &format!("live-{number}"), HOUR).await;
        win(&store, claim(&format!("held-{number}"))).await;
        // The lease has passed, but the retention has not.
        let lapsed = win(&store, claim(&format!("lapsed-{number}"))).await;
        let abandoned = store.abandon(lapsed).await;
        assert_eq!(abandoned.expect("postgres is there"), Settled::Done);
        // The lease and the retention have passed.
        let gone = id(&format!("gone-{number}"));
        win(&store, Claim::new(gone, FINGERPRINT, SHORT, SHORT)).await;
    }
    eventually_async("the expiry", async || {
        let expired = "SELECT count(*) FROM idem_records WHERE expires_at <= clock_timestamp()";
        (server.command(expired) == "20").then_some(())
    })
    .await;
    assert_eq!(store.sweep().await.expect("postgres is there"), 20);
    assert_eq!(store.sweep().await.expect("postgres is there"), 0);
    assert_eq!(server.command("SELECT count(*) FROM idem_records"), "30");
    assert_eq!(replay(&store, "live-3").await, record(b"live-3"));
}

#[tokio::test]
async fn the_sweeper_works_in_batches_and_skips_locked_rows() {
    let server = PostgresServer::start();
    let store = connect(&server).await;
    server.command(
        "INSERT INTO idem_records (id, version, fingerprint, owner, fence, attempt, leased_until,
            retention_ms, expires_at, created_at, endpoint)
         SELECT sha256(n::text::bytea), 2, '', '', 1, 1, to_timestamp(0), 0, to_timestamp(n),
            to_timestamp(0), ''
         FROM generate_series(1, 2500) n",
    );
    let mut transaction = pool(&server)
        .await
        .begin()
        .await
        .expect("postgres is there");
    sqlx::query("SELECT 1 FROM idem_records ORDER BY expires_at LIMIT 3 FOR UPDATE")
        .execute(&mut *transaction)
        .await
        .expect("the rows are free");
    assert_eq!(store.sweep().await.expect("nothing waits"), 2497);
    transaction.rollback().await.expect("postgres is there");
    assert_eq!(store.sweep().await.expect("postgres is there"), 3);
}

#[tokio::test]
async fn the_sweeper_runs_by_itself() {
    let server = PostgresServer::start();
    let pool = pool(&server).await;
    let store = PostgresStore::builder()
        .pool(pool.clone())
        .sweep_every(Duration::from_millis(20))
        .connect()
        .await
        .expect("postgres is there");
    keep(&store, "k", SHORT).await;
    eventually_async("the sweep", async || {
        let count = sqlx::query_scalar::<_, i64>("SELECT count(*) FROM idem_records");
        let count = count.fetch_one(&pool).await.expect("postgres is there");
        (count == 0).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_read_only_server_is_refused() {
    let server = PostgresServer::with(&["default_transaction_read_only=on"]);
    let error = PostgresStore::connect(server.url()).await.err();
    assert!(matches!(error, Some(StoreError::Unfit(_))), "{error:?}");

    let primary = PostgresServer::start();
    connect(&primary).await;
    let replica = PostgresServer::replica_of(&primary);
    let error = PostgresStore::connect(replica.url()).await.err();
    assert!(matches!(error, Some(StoreError::Unfit(_))), "{error:?}");
}

/// Everything that was acknowledged is on disk, whatever the session's settings are.
#[tokio::test]
async fn acknowledged_transitions_survive_a_crash() {
    for ends_with_a_claim in [false, true] {
        crash(ends_with_a_claim).await;
    }
}

/// A durable commit also writes everything before it to disk, so only the last transition is
/// tested.
async fn crash(ends_with_a_claim: bool) {
    let mut server = PostgresServer::with(&["synchronous_commit=off", "wal_writer_delay=10s"]);
    let builder = PostgresStore::builder().url(server.url()).no_sweeper();
    let store = builder.timeout(Duration::from_secs(5)).connect().await;
    let store = store.expect("postgres is there");
    if ends_with_a_claim {
        keep(&store, "done", HOUR).await;
    }
    let held = win(&store, claim("held")).await;
    if !ends_with_a_claim {
        keep(&store, "done", HOUR).await;
    }
    server.kill();
    let error = store
        .claim(claim("new"))
        .await
        .expect_err("postgres is gone");
    assert!(
        matches!(error, StoreError::Unavailable(_) | StoreError::TimedOut),
        "{error:?}"
    );

    server.start_again();
    assert_eq!(replay(&store, "done").await, record(b"done"));
    let duplicate = store.claim(claim("held")).await;
    assert!(matches!(duplicate, Ok(Claimed::InFlight { .. })));
    let completed = store.complete(held, record(b"late"), HOUR).await;
    assert_eq!(completed.expect("postgres is back"), Settled::Done);
    // Another process sees the same state.
    assert_eq!(
        replay(&connect(&server).await, "held").await,
        record(b"late")
    );
}

/// With `hold`, a key whose release is lost stays unknown although no handler ran.
#[tokio::test]
async fn releases_and_abandoned_claims_survive_a_crash() {
    let settings = ["synchronous_commit=off", "wal_writer_delay=10s"];
    for releases in [true, false] {
        let mut server = PostgresServer::with(&settings);
        let store = connect(&server).await;
        let holder = win(&store, claim("k")).await;
        let settled = if releases {
            store.release(holder).await
        } else {
            store.abandon(holder).await
        };
        assert_eq!(settled.expect("postgres is there"), Settled::Done);
        server.kill();
        server.start_again();
        let claimed = connect(&server).await.claim(claim("k")).await;
        let attempt = if releases { 1 } else { 2 };
        assert!(
            matches!(claimed, Ok(Claimed::Fresh { attempt: it, .. }) if it == attempt),
            "{claimed:?}"
        );
    }
}

#[tokio::test]
async fn a_restart_between_two_requests_is_not_noticed() {
    let mut server = PostgresServer::start();
    let store = connect(&server).await;
    let holder = win(&store, claim("k")).await;
    server.kill();
    server.start_again();
    let completed = store.complete(holder, record(b"{}"), HOUR).await;
    assert_eq!(completed.expect("postgres is back"), Settled::Done);
}

/// There are more connections than a transition has tries, and all of them are broken.
#[tokio::test]
async fn a_restart_with_many_idle_connections_is_not_noticed() {
    let mut server = PostgresServer::start();
    let builder = PostgresStore::builder().url(server.url()).no_sweeper();
    let builder = builder.timeout(Duration::from_secs(20)).max_connections(20);
    let store = builder.connect().await.expect("postgres is there");
    let names: Vec<_> = (0..20).map(|number| number.to_string()).collect();
    let holders = join_all(names.iter().map(|name| win(&store, claim(name)))).await;
    server.kill();
    server.start_again();
    let completed = store.complete(holders[0], record(b"{}"), HOUR).await;
    assert_eq!(completed.expect("postgres is back"), Settled::Done);
}

/// The address leads to another server after a failover: the old primary accepts no writes.
#[tokio::test]
async fn a_read_only_connection_is_replaced() {
    let server = PostgresServer::start();
    let store = connect(&server).await;
    win(&store, claim("k")).await;
    // Existing sessions stay read-only, and new sessions are not.
    server.command("ALTER DATABASE postgres SET default_transaction_read_only = off");
    server.set("default_transaction_read_only", "on");
    win(&store, claim("l")).await;
}

/// When handlers hold every connection of the pool, the store can still renew their leases.
#[tokio::test]
async fn an_exhausted_pool_does_not_stop_the_store() {
    let server = PostgresServer::start();
    let url = server.url();
    let pool = PgPoolOptions::new().max_connections(1).connect(&url).await;
    let pool = pool.expect("postgres is there");
    let [store, _] = of_two_minds(&pool).await;
    let _taken = pool.acquire().await.expect("postgres is there");
    let holder = win(&store, claim("k")).await;
    let renewed = store.renew(holder, HOUR).await.expect("postgres is there");
    assert_eq!(renewed, Settled::Done);
    let completed = store.complete(holder, record(b"{}"), HOUR).await;
    assert_eq!(completed.expect("postgres is there"), Settled::Done);
}

/// A replay is a read: it waits for no lock, and writes nothing.
#[tokio::test]
async fn replays_do_not_wait_for_row_locks() {
    let server = PostgresServer::start();
    let pool = pool(&server).await;
    let [store, impatient] = of_two_minds(&pool).await;
    keep(&store, "done", HOUR).await;
    let held = win(&store, claim("held")).await;
    let mut transaction = pool.begin().await.expect("postgres is there");
    sqlx::query("LOCK TABLE idem_records IN EXCLUSIVE MODE")
        .execute(&mut *transaction)
        .await
        .expect("nobody holds it");
    let error = impatient
        .claim(claim("new"))
        .await
        .expect_err("it has to write");
    assert!(matches!(error, StoreError::TimedOut), "{error:?}");
    let error = impatient
        .renew(held, HOUR)
        .await
        .expect_err("it has to write");
    assert!(matches!(error, StoreError::TimedOut), "{error:?}");
    transaction.rollback().await.expect("postgres is there");

    let rows = "SELECT ctid, xmin, xmax FROM idem_records ORDER BY id";
    let before = server.command(rows);
    assert_eq!(replay(&store, "done").await, record(b"done"));
    assert_eq!(server.command(rows), before);

    let mut transaction = pool.begin().await.expect("postgres is there");
    sqlx::query("SELECT 1 FROM idem_records FOR UPDATE")
        .execute(&mut *transaction)
        .await
        .expect("nobody holds them");
    assert_eq!(replay(&store, "done").await, record(b"done"));
    let duplicate = store.claim(claim("held")).await;
    assert!(matches!(duplicate, Ok(Claimed::InFlight { .. })));
    transaction.rollback().await.expect("postgres is there");
}

/// If a claim read the clock and was then held up, its fence could be lower than those of claims
/// that came and went in the meantime. So a claim waits for the lock before it reads the clock.
#[tokio::test(flavor = "multi_thread")]
async fn a_held_up_claim_gets_a_higher_fence_than_earlier_claims() {
    let server = PostgresServer::start();
    let pool = pool(&server).await;
    let [store, _] = of_two_minds(&pool).await;
    let id = id("k");
    let (_, number) = id.as_bytes().split_last_chunk().expect("32 bytes");
    let mut transaction = pool.begin().await.expect("postgres is there");
    sqlx::query("SELECT pg_advisory_xact_lock($1)")
        .bind(i64::from_be_bytes(*number))
        .execute(&mut *transaction)
        .await
        .expect("nobody holds it");
    let held_up = tokio::spawn(async move { win(&store, claim("k")).await });
    eventually_async("a claim that waits or has finished", async || {
        let waiting = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted";
        (held_up.is_finished() || server.command(waiting) == "1").then_some(())
    })
    .await;
    let now = "SELECT floor(extract(epoch FROM clock_timestamp()) * 1000000)::bigint";
    let before: u64 = server.command(now).parse().expect("microseconds");
    transaction.commit().await.expect("postgres is there");
    let fence = held_up.await.expect("no panic").fence;
    assert!(fence > before, "{fence} after {before}");
}

/// A replay does not wait for the lock that a claim takes before it writes, either.
#[tokio::test]
async fn replays_do_not_wait_for_claims() {
    let server = PostgresServer::start();
    let store = connect(&server).await;
    keep(&store, "done", HOUR).await;
    let held = win(&store, claim("held")).await;
    let pool = pool(&server).await;
    let mut transaction = pool.begin().await.expect("postgres is there");
    for id in [id("done"), held.id] {
        let (_, number) = id.as_bytes().split_last_chunk().expect("32 bytes");
        sqlx::query("SELECT pg_advisory_xact_lock($1)")
            .bind(i64::from_be_bytes(*number))
            .execute(&mut *transaction)
            .await
            .expect("nobody holds it");
    }
    assert_eq!(replay(&store, "done").await, record(b"done"));
    let duplicate = store.claim(claim("held")).await;
    assert!(matches!(duplicate, Ok(Claimed::InFlight { .. })));
}

#[tokio::test]
async fn a_repeated_completion_is_done_and_does_not_extend_the_record() {
    let server = PostgresServer::start();
    let store = connect(&server).await;
    let holder = win(&store, claim("k")).await;
    for ttl in [HOUR, 10 * HOUR] {
        let completed = store.complete(holder, record(b"{}"), ttl).await;
        assert_eq!(completed.expect("postgres is there"), Settled::Done);
    }
    match store.look_up(holder.id).await {
        Ok(Some(Entry::Recorded { expires_in, .. })) => assert!(expires_in <= HOUR),
        entry => panic!("no record: {entry:?}"),
    }
}

#[tokio::test]
async fn unreadable_records_are_left_unchanged() {
    let server = PostgresServer::start();
    let store = connect(&server).await;
    keep(&store, "k", HOUR).await;
    for bytes in ["", "00", "09ff", "01"] {
        server.command(&format!("UPDATE idem_records SET record = '\\x{bytes}'"));
        let error = store.claim(claim("k")).await.expect_err("not a record");
        assert!(matches!(error, StoreError::Undecodable(_)), "{error:?}");
        let stored = server.command("SELECT encode(record, 'hex') FROM idem_records");
        assert_eq!(stored, bytes);
    }
    server.command("UPDATE idem_records SET version = 9");
    let error = store.claim(claim("k")).await.expect_err("another version");
    assert!(matches!(
        error,
        StoreError::Undecodable(DecodeError::Version(9))
    ));
}

#[tokio::test]
async fn special_characters_in_keys_and_scopes_are_harmless() {
    let server = PostgresServer::start();
    let store = connect(&server).await;
    let long = "x".repeat(254);
    let names = [
        "*",
        "'; drop table idem_records;--",
        "{tag}",
        "%",
        "",
        "\0",
        "a",
        "a ",
        &format!("{long}1"),
        &format!("{long}2"),
    ];
    for name in names {
        keep(&store, name, HOUR).await;
    }
    for name in names {
        assert_eq!(replay(&store, name).await, record(name.as_bytes()));
    }
}

#[tokio::test]
async fn keys_tokens_and_scopes_are_never_stored() {
    let server = PostgresServer::start();
    let store = connect(&server).await;
    let id = RecordId::new(
        "production",
        &Scope::new()
            .value("Bearer SECRETTOKEN")
            .value("SECRETSCOPE"),
        "SECRETKEY",
    );
    let holder = win(&store, Claim::new(id, FINGERPRINT, HOUR, HOUR)).await;
    let completed = store.complete(holder, record(b"PUBLICBODY"), HOUR).await;
    assert_eq!(completed.expect("postgres is there"), Settled::Done);
    assert!(
        server.has_on_disk("PUBLICBODY"),
        "the test searched the wrong place"
    );
    for secret in ["SECRETTOKEN", "SECRETSCOPE", "SECRETKEY"] {
        assert!(!server.has_on_disk(secret), "{secret} is stored");
    }
}

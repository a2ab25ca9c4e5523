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

/// One store that waits for long, for a test machine may be busy, and one that does not.
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
async fn a_table_that_stands_asks_for_no_rights() {
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

/// As after a version of the library without it, or with another.
#[tokio::test]
async fn a_function_that_is_missing_is_created_or_told_at_the_start() {
    let server = PostgresServer::start();
    let url = server.url();
    let owner = PostgresStore::builder().url(&url).schema("idem");
    let store = owner.clone().connect().await.expect("it may create");
    keep(&store, "k", HOUR).await;
    server.command("DROP FUNCTION idem.idem_records_claim_v1");
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
async fn a_name_that_is_none_is_refused_before_it_is_sent() {
    for name in ["x; drop table y", "x\"", "", "1x"] {
        let builder = PostgresStore::builder().url("postgres://127.0.0.1:1/");
        let error = builder.clone().table(name).connect().await.err();
        assert!(matches!(error, Some(StoreError::Unfit(_))), "{error:?}");
        let error = builder.schema(name).connect().await.err();
        assert!(matches!(error, Some(StoreError::Unfit(_))), "{error:?}");
    }
}

#[tokio::test]
async fn the_sweeper_removes_what_has_expired_and_nothing_else() {
    let server = PostgresServer::start();
    let store = connect(&server).await;
    for number in 0..10 {
        keep(&store, &format!("expired-{number}"), SHORT).await;
        keep(&store, &format!("live-{number}"), HOUR).await;
        win(&store, claim(&format!("held-{number}"))).await;
        // Its lease has passed, and its retention has not.
        let lapsed = win(&store, claim(&format!("lapsed-{number}"))).await;
        let abandoned = store.abandon(lapsed).await;
        assert_eq!(abandoned.expect("postgres is there"), Settled::Done);
        // Both have passed.
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
async fn the_sweeper_goes_batch_by_batch_and_past_locked_rows() {
    let server = PostgresServer::start();
    let store = connect(&server).await;
    server.command(
        "INSERT INTO idem_records
         SELECT sha256(n::text::bytea), 1, '', '', 1, 1, to_timestamp(0), 0, to_timestamp(n), NULL
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
async fn a_server_that_takes_no_writes_is_refused() {
    let server = PostgresServer::with(&["default_transaction_read_only=on"]);
    let error = PostgresStore::connect(server.url()).await.err();
    assert!(matches!(error, Some(StoreError::Unfit(_))), "{error:?}");

    let primary = PostgresServer::start();
    connect(&primary).await;
    let replica = PostgresServer::replica_of(&primary);
    let error = PostgresStore::connect(replica.url()).await.err();
    assert!(matches!(error, Some(StoreError::Unfit(_))), "{error:?}");
}

/// Whatever the session says, what was acknowledged is on disk.
#[tokio::test]
async fn a_crash_takes_nothing_that_was_acknowledged() {
    for ends_with_a_claim in [false, true] {
        crash(ends_with_a_claim).await;
    }
}

/// What is committed durably takes all before it to disk, so that only the last tells.
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
    // Another process finds the same.
    assert_eq!(
        replay(&connect(&server).await, "held").await,
        record(b"late")
    );
}

/// Under `hold`, a key whose release is lost stays unknown although no handler ran.
#[tokio::test]
async fn a_crash_takes_no_release_and_no_abandonment() {
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

/// More connections than a transition has tries, and none of them lives.
#[tokio::test]
async fn a_restart_behind_many_connections_is_not_noticed_either() {
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

/// As behind an address that leads elsewhere since a failover: the old primary takes no writes.
#[tokio::test]
async fn a_connection_that_takes_no_writes_any_more_is_left_for_another() {
    let server = PostgresServer::start();
    let store = connect(&server).await;
    win(&store, claim("k")).await;
    // The sessions that there are stay read-only, and new ones are not.
    server.command("ALTER DATABASE postgres SET default_transaction_read_only = off");
    server.set("default_transaction_read_only", "on");
    win(&store, claim("l")).await;
}

/// Handlers that hold every connection do not keep the store from renewing their leases.
#[tokio::test]
async fn an_exhausted_pool_of_the_service_stops_nothing() {
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

/// A replay is a read: it waits for no lock and writes nothing.
#[tokio::test]
async fn a_lock_on_a_row_stops_no_replay() {
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

/// A claim that read its time and was then held up got a fence below those of whoever came and went
/// meanwhile. It waits before it reads.
#[tokio::test(flavor = "multi_thread")]
async fn a_claim_that_was_held_up_has_a_fence_above_those_that_came_before_it() {
    let server = PostgresServer::start();
    let pool = pool(&server).await;
    let [store, _] = of_two_minds(&pool).await;
    let id = id("k");
    let (number, _) = id.as_bytes().split_first_chunk().expect("32 bytes");
    let mut transaction = pool.begin().await.expect("postgres is there");
    sqlx::query("SELECT pg_advisory_xact_lock($1)")
        .bind(i64::from_be_bytes(*number))
        .execute(&mut *transaction)
        .await
        .expect("nobody holds it");
    let held_up = tokio::spawn(async move { win(&store, claim("k")).await });
    eventually_async("the claim waits, or has ended", async || {
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

/// Nor for the lock that a claim takes before it writes.
#[tokio::test]
async fn a_claim_at_work_stops_no_replay() {
    let server = PostgresServer::start();
    let store = connect(&server).await;
    keep(&store, "done", HOUR).await;
    let held = win(&store, claim("held")).await;
    let pool = pool(&server).await;
    let mut transaction = pool.begin().await.expect("postgres is there");
    for id in [id("done"), held.id] {
        let (number, _) = id.as_bytes().split_first_chunk().expect("32 bytes");
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
async fn a_completion_that_is_repeated_is_done_and_prolongs_nothing() {
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
async fn bytes_that_are_no_record_stay_as_they_are() {
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
async fn keys_and_scopes_are_only_bytes() {
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
async fn no_key_no_token_and_no_scope_is_ever_stored() {
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
        "the record was looked for in the wrong place"
    );
    for secret in ["SECRETTOKEN", "SECRETSCOPE", "SECRETKEY"] {
        assert!(!server.has_on_disk(secret), "{secret} is stored");
    }
}

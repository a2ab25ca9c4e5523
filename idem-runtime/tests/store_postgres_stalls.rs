//! The PostgreSQL store on servers that stall, refuse, or lose replies.
#![cfg(feature = "postgres")]

use std::time::Duration;

use futures_util::future::join_all;
use idem_runtime::ScopeId;
use idem_runtime::store::{Claim, Claimed, Entry, PostgresStore, Settled, Store, StoreError};
use sqlx::postgres::PgPoolOptions;
use sqlx::{PgPool, Postgres, Transaction};

use test_support::servers::asking::{FINGERPRINT, HOUR, claim, complete, id, record, replay, win};
use test_support::servers::eventually_async;
use test_support::servers::postgres::PostgresServer;
use test_support::servers::wire::Wire;

const PATIENT: Duration = Duration::from_secs(20);
const IMPATIENT: Duration = Duration::from_millis(300);
/// The connection limit of stores whose sessions are counted.
const MAX: u32 = 3;

const WAIT_FOR_STANDBY: &str = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'SyncRep'";
const WAIT_FOR_LOCK: &str = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'";

async fn connect(url: &str, max: u32, timeout: Duration) -> PostgresStore {
    // Set up with a long timeout, because a test machine may be busy.
    PostgresStore::builder()
        .url(url)
        .no_sweeper()
        .timeout(PATIENT)
        .connect()
        .await
        .expect("it is set up");
    eventually_async("a connected store", async || {
        let builder = PostgresStore::builder().url(url).no_sweeper();
        let builder = builder.max_connections(max).timeout(timeout);
        builder.connect().await.ok()
    })
    .await
}

async fn pool(server: &PostgresServer) -> PgPool {
    let pool = PgPoolOptions::new().connect(&server.url()).await;
    pool.expect("postgres is there")
}

async fn lock_table(pool: &PgPool) -> Transaction<'static, Postgres> {
    let mut transaction = pool.begin().await.expect("postgres is there");
    sqlx::query("LOCK TABLE idem_records IN ACCESS EXCLUSIVE MODE")
        .execute(&mut *transaction)
        .await
        .expect("the table is free");
    transaction
}

/// Sends claims that cannot succeed, and returns the highest number of sessions that waited.
async fn refused_claims(store: &PostgresStore, server: &PostgresServer, waits: &str) -> usize {
    let mut most = 0;
    for round in 0..6 {
        let names: Vec<_> = (0..5).map(|number| format!("{round} {number}")).collect();
        let claims = join_all(names.iter().map(|name| store.claim(claim(name)))).await;
        assert!(claims.iter().all(Result::is_err), "{claims:?}");
        most = most.max(server.command(waits).parse().expect("a number"));
    }
    most
}

async fn serves_again(store: &PostgresStore) {
    eventually_async("a claim", async || {
        let claimed = store.claim(claim("afterwards")).await;
        matches!(claimed, Ok(Claimed::Fresh { .. })).then_some(())
    })
    .await;
}

/// `CREATE INDEX` takes such a lock, and so does a queued `ALTER TABLE`.
#[tokio::test]
async fn a_locked_table_does_not_exceed_max_connections() {
    let server = PostgresServer::start();
    let store = connect(&server.url(), MAX, IMPATIENT).await;
    let pool = pool(&server).await;
    let lock = lock_table(&pool).await;
    let most = refused_claims(&store, &server, WAIT_FOR_LOCK).await;
    assert!(most <= MAX as usize, "{most} sessions wait");
    eventually_async("the end of the statements during the lock", async || {
        (server.command(WAIT_FOR_LOCK) == "0").then_some(())
    })
    .await;
    lock.rollback().await.expect("postgres is there");
    serves_again(&store).await;
}

#[tokio::test]
async fn a_missing_standby_does_not_exceed_max_connections() {
    let server = PostgresServer::start();
    let store = connect(&server.url(), MAX, IMPATIENT).await;
    server.set("synchronous_standby_names", "gone");
    let most = refused_claims(&store, &server, WAIT_FOR_STANDBY).await;
    assert_eq!(most, MAX as usize, "number of waiting sessions");
    let error = store
        .claim(claim("k"))
        .await
        .expect_err("no connection is free");
    let text = error.to_string();
    assert!(text.contains("all 3 connections"), "{text}");
    server.reset("synchronous_standby_names");
    serves_again(&store).await;
}

#[tokio::test]
async fn a_stall_does_not_use_the_pool_of_the_service() {
    let server = PostgresServer::start();
    connect(&server.url(), MAX, PATIENT).await;
    let pool = pool(&server).await;
    let builder = PostgresStore::builder().pool(pool.clone()).no_sweeper();
    let store = builder.timeout(IMPATIENT).connect().await;
    let store = store.expect("postgres is there");
    let before = pool.size();
    let lock = lock_table(&pool).await;
    refused_claims(&store, &server, WAIT_FOR_LOCK).await;
    assert_eq!(
        pool.size(),
        before.max(1),
        "the store used connections of the pool"
    );
    lock.rollback().await.expect("postgres is there");
    serves_again(&store).await;
}

/// When an operator cancels the wait, the server acknowledges a commit that no standby has.
#[tokio::test(flavor = "multi_thread")]
async fn a_canceled_wait_for_a_standby_does_not_win_a_claim() {
    let server = PostgresServer::start();
    let store = connect(&server.url(), MAX, Duration::from_secs(8)).await;
    server.set("synchronous_standby_names", "gone");
    let claiming = store.clone();
    let claiming = tokio::spawn(async move { claiming.claim(claim("k")).await });
    // Longer than a quarter of the timeout.
    let waits = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'SyncRep'
        AND clock_timestamp() - query_start > interval '2500 ms'";
    eventually_async("a wait for the standby", async || {
        (server.command(waits) == "1").then_some(())
    })
    .await;
    let now = server.command("SELECT clock_timestamp()");
    server.command(
        "SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE wait_event = 'SyncRep'",
    );
    let waits_again = format!("{WAIT_FOR_STANDBY} AND query_start > '{now}'");
    eventually_async("another wait or the end", async || {
        (claiming.is_finished() || server.command(&waits_again) == "1").then_some(())
    })
    .await;
    assert!(
        !claiming.is_finished(),
        "the claim counts without a standby"
    );
    server.reset("synchronous_standby_names");
    let claimed = claiming.await.expect("no panic");
    assert!(
        matches!(claimed, Ok(Claimed::Fresh { attempt: 1, .. })),
        "{claimed:?}"
    );
}

/// Like the test above, for removals. A repeated removal finds no row, and the commit of a read does
/// not wait for a standby.
#[tokio::test(flavor = "multi_thread")]
async fn a_repeated_removal_waits_for_standbys() {
    let server = PostgresServer::start();
    let mut standby = PostgresServer::replica_of(&server);
    let store = connect(&server.url(), MAX, Duration::from_secs(8)).await;
    let released = win(&store, claim("released")).await;
    complete(&store, "forgotten").await;
    let rows = "SELECT count(*) FROM idem_records";
    eventually_async("both rows on the standby", async || {
        (standby.command(rows) == "2").then_some(())
    })
    .await;
    standby.kill();
    server.set("synchronous_standby_names", "*");

    let (releasing, forgetting) = (store.clone(), store.clone());
    let releasing = tokio::spawn(async move { releasing.release(released).await });
    let forgetting = tokio::spawn(async move { forgetting.forget(id("forgotten")).await });
    // More than a quarter of the timeout.
    let wait =
        format!("{WAIT_FOR_STANDBY} AND clock_timestamp() - query_start > interval '2500 ms'");
    eventually_async("both wait for the standby", async || {
        (server.command(&wait) == "2").then_some(())
    })
    .await;
    let now = server.command("SELECT clock_timestamp()");
    server.command(
        "SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE wait_event = 'SyncRep'",
    );
    let wait_again = format!("{WAIT_FOR_STANDBY} AND query_start > '{now}'");
    eventually_async("both wait again, or one has ended", async || {
        let ended = releasing.is_finished() || forgetting.is_finished();
        (ended || server.command(&wait_again) == "2").then_some(())
    })
    .await;
    assert!(
        !releasing.is_finished(),
        "the release counts without a standby"
    );
    assert!(
        !forgetting.is_finished(),
        "the removal counts without a standby"
    );

    standby.start_again();
    let released = releasing.await.expect("no panic");
    assert_eq!(released.expect("postgres is there"), Settled::Done);
    let forgotten = forgetting.await.expect("no panic");
    assert!(forgotten.expect("postgres is there"));
}

/// Like the test above, for the removal of a scope.
#[tokio::test(flavor = "multi_thread")]
async fn a_repeated_removal_of_a_scope_waits_for_standbys() {
    let server = PostgresServer::start();
    let store = connect(&server.url(), MAX, Duration::from_secs(8)).await;
    complete(&store, "k").await;
    server.set("synchronous_standby_names", "gone");
    let forgetting = store.clone();
    let scope = id("k").scope_id();
    let forgetting = tokio::spawn(async move { forgetting.forget_scope(scope).await });
    // More than a quarter of the timeout.
    let wait =
        format!("{WAIT_FOR_STANDBY} AND clock_timestamp() - query_start > interval '2500 ms'");
    eventually_async("a wait for the standby", async || {
        (server.command(&wait) == "1").then_some(())
    })
    .await;
    let now = server.command("SELECT clock_timestamp()");
    server.command(
        "SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE wait_event = 'SyncRep'",
    );
    let waits_again = format!("{WAIT_FOR_STANDBY} AND query_start > '{now}'");
    eventually_async("another wait or the end", async || {
        (forgetting.is_finished() || server.command(&waits_again) == "1").then_some(())
    })
    .await;
    assert!(
        !forgetting.is_finished(),
        "the removal counts without a standby"
    );
    server.reset("synchronous_standby_names");
    let forgotten = forgetting.await.expect("no panic");
    assert_eq!(forgotten.expect("postgres is there"), 1);
}

/// The server cancels a statement that takes longer than the timeout of the store.
#[tokio::test]
async fn a_scope_whose_removal_takes_longer_than_the_timeout_is_forgotten_in_parts() {
    let server = PostgresServer::start();
    let store = connect(&server.url(), MAX, Duration::from_secs(1)).await;
    server.command(
        "INSERT INTO idem_records (id, fence, leased_until, expires_at, created_at, settled_at,
            retention_ms, attempt, version, fingerprint, owner, endpoint, record)
        SELECT decode(md5('scope') || md5(n::text), 'hex'), n, now(), now() + interval '1 day', now(),
            now(), 0, 1, 3, '', '', '', '' FROM generate_series(1, 250) AS n",
    );
    // 250 rows take 2.5 s.
    server.command(
        "CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql
        AS 'BEGIN PERFORM pg_sleep(0.01); RETURN OLD; END'",
    );
    server.command(
        "CREATE TRIGGER slow BEFORE DELETE ON idem_records FOR EACH ROW EXECUTE FUNCTION slow()",
    );
    let scope: ScopeId = server
        .command("SELECT md5('scope')")
        .parse()
        .expect("a scope");
    let forgotten = store.forget_scope(scope).await;
    assert_eq!(forgotten.expect("postgres is there"), 250);
    assert_eq!(server.command("SELECT count(*) FROM idem_records"), "0");
}

/// Makes claims take this much longer, for stores that connect afterwards.
fn slow_down(server: &PostgresServer, seconds: f32) {
    server.command("ALTER FUNCTION idem_records_claim_v5 RENAME TO fast");
    server.command(&format!(
        "CREATE FUNCTION idem_records_claim_v5
            (bytea, bytea, bytea, bigint, bigint, boolean, bigint, bytea, text, text, boolean)
        RETURNS bytea LANGUAGE sql AS 'SELECT pg_sleep({seconds}); SELECT
            fast($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)'"
    ));
}

/// Like a standby in another region: each commit is acknowledged, but takes more than 250 ms.
#[tokio::test]
async fn commits_that_are_always_slow_are_accepted() {
    let server = PostgresServer::start();
    connect(&server.url(), MAX, PATIENT).await;
    slow_down(&server, 0.4);
    let local = format!("{}&options=-csynchronous_commit=local", server.url());
    let store = connect(&local, MAX, PATIENT).await;
    server.set("synchronous_standby_names", "far_away");
    win(&store, claim("k")).await;
}

/// A replay writes nothing, so nobody can have canceled a wait for a standby.
#[tokio::test]
async fn a_slow_replay_is_accepted() {
    let server = PostgresServer::start();
    let fast = connect(&server.url(), MAX, PATIENT).await;
    complete(&fast, "k").await;
    slow_down(&server, 1.0);
    let store = connect(&server.url(), MAX, Duration::from_secs(3)).await;
    server.set("synchronous_standby_names", "gone");
    replay(&store, "k").await;
}

/// The row exists, as after a restart while the commit waited. Nobody can see that no standby has
/// it.
#[tokio::test(flavor = "multi_thread")]
async fn a_repeated_claim_waits_for_standbys() {
    let server = PostgresServer::start();
    let store = connect(&server.url(), MAX, PATIENT).await;
    let first = claim("k");
    let holder = win(&store, first.clone()).await;
    let completed = claim("completed");
    let other = win(&store, completed).await;
    let done = store.complete(other, record(b"{}"), HOUR).await;
    assert_eq!(done.expect("postgres is there"), Settled::Done);
    server.set("synchronous_standby_names", "gone");
    let (claiming, completing) = (store.clone(), store.clone());
    let claiming = tokio::spawn(async move { win(&claiming, first).await });
    let completing =
        tokio::spawn(async move { completing.complete(other, record(b"{}"), HOUR).await });
    eventually_async("both transitions wait or one has ended", async || {
        let ended = claiming.is_finished() || completing.is_finished();
        (ended || server.command(WAIT_FOR_STANDBY) == "2").then_some(())
    })
    .await;
    assert!(
        !claiming.is_finished(),
        "the claim counts without a standby"
    );
    assert!(
        !completing.is_finished(),
        "the record counts without a standby"
    );
    server.reset("synchronous_standby_names");
    assert_eq!(claiming.await.expect("won again"), holder);
    let completed = completing.await.expect("no panic");
    assert_eq!(completed.expect("postgres is there"), Settled::Done);
}

#[tokio::test]
async fn a_lost_sweep_reply_stops_neither_the_sweeper_nor_the_store() {
    let server = PostgresServer::start();
    connect(&server.url(), MAX, PATIENT).await;
    let wire = Wire::to(server.socket_folder()).await;
    let store = PostgresStore::builder()
        .url(wire.url())
        .max_connections(1)
        .timeout(Duration::from_secs(1))
        .sweep_every(Duration::from_millis(20))
        .connect()
        .await
        .expect("postgres is there");
    wire.go_dark();
    eventually_async("a sweep without a reply", async || {
        wire.has_lost().then_some(())
    })
    .await;
    let short = Duration::from_millis(1);
    eventually_async("a claim afterwards", async || {
        let claim = Claim::new(id("k"), FINGERPRINT, short, short);
        store.claim(claim).await.ok()
    })
    .await;
    eventually_async("a sweep afterwards", async || {
        (server.command("SELECT count(*) FROM idem_records") == "0").then_some(())
    })
    .await;
}

#[tokio::test]
async fn connect_times_out_behind_another_set_up() {
    let server = PostgresServer::start();
    let pool = pool(&server).await;
    let lock = "SELECT pg_advisory_lock(hashtextextended('axum-idem ' || $1, 0))";
    let mut other = pool.acquire().await.expect("postgres is there");
    sqlx::query(lock)
        .bind("\"public\".\"idem_records\"")
        .execute(&mut *other)
        .await
        .expect("the lock is free");
    let builder = PostgresStore::builder().url(server.url());
    let connecting = builder.timeout(IMPATIENT).connect();
    let connected = tokio::time::timeout(Duration::from_secs(60), connecting).await;
    let error = connected.expect("`connect` gives up in time").err();
    assert!(matches!(error, Some(StoreError::TimedOut)), "{error:?}");
}

#[tokio::test]
async fn closed_sessions_do_not_fail_a_transition() {
    let server = PostgresServer::start();
    // TCP, because the server's last message can be read there. A local socket fails earlier.
    let wire = Wire::to(server.socket_folder()).await;
    let store = connect(&wire.url(), 8, PATIENT).await;
    server.set("idle_session_timeout", "200ms");
    let names: Vec<_> = (0..8).map(|number| number.to_string()).collect();
    join_all(names.iter().map(|name| win(&store, claim(name)))).await;
    let sessions = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'axum-idem'";
    eventually_async("the server closes them", async || {
        (server.command(sessions) == "0").then_some(())
    })
    .await;
    let renewals = names.iter().map(|name| async {
        let duplicate = store.claim(claim(name)).await;
        assert!(
            matches!(duplicate, Ok(Claimed::InFlight { .. })),
            "{duplicate:?}"
        );
    });
    join_all(renewals).await;
}

/// Like a primary that became a replica at the same address.
#[tokio::test]
async fn a_read_only_server_gets_few_new_sessions() {
    const CLAIMS: usize = 50;
    let server = PostgresServer::with(&["log_connections=on"]);
    let store = connect(&server.url(), 10, PATIENT).await;
    server.set("default_transaction_read_only", "on");
    let before = server.sessions_of_stores();
    for number in 0..CLAIMS {
        let error = store.claim(claim(&number.to_string())).await;
        let text = error.expect_err("the server is read-only").to_string();
        assert!(text.contains("read-only"), "{text}");
    }
    let opened = server.sessions_of_stores() - before;
    assert!(opened <= CLAIMS, "{opened} sessions for {CLAIMS} claims");
    server.reset("default_transaction_read_only");
    serves_again(&store).await;
}

/// A store behind a test proxy, with one connection on which every statement was used once.
async fn on_a_wire(server: &PostgresServer) -> (Wire, PostgresStore) {
    let wire = Wire::to(server.socket_folder()).await;
    let store = connect(&wire.url(), 1, PATIENT).await;
    let holder = win(&store, claim("warm")).await;
    let _ = store.abandon(holder).await.expect("postgres is there");
    let resolved = store.resolve(holder.id, holder.fence, record(b""), HOUR);
    assert_eq!(resolved.await.expect("postgres is there"), Settled::Done);
    assert!(store.forget(holder.id).await.expect("postgres is there"));
    let holder = win(&store, claim("warm")).await;
    let released = store.release(holder).await.expect("postgres is there");
    assert_eq!(released, Settled::Done);
    (wire, store)
}

#[tokio::test]
async fn operators_learn_the_effect_after_a_lost_reply() {
    let server = PostgresServer::start();
    let (wire, store) = on_a_wire(&server).await;

    let holder = win(&store, claim("resolved")).await;
    let _ = store.abandon(holder).await.expect("postgres is there");
    wire.lose_reply(1);
    let resolved = store.resolve(holder.id, holder.fence, record(b"{}"), HOUR);
    assert_eq!(resolved.await.expect("sent again"), Settled::Done);
    assert!(wire.has_lost(), "no reply was lost");
    let found = store.look_up(holder.id).await.expect("postgres is there");
    assert!(matches!(found, Some(Entry::Recorded { .. })), "{found:?}");
    // A different record is not the effect of the first `resolve`.
    let resolved = store.resolve(holder.id, holder.fence, record(b"[]"), HOUR);
    assert_eq!(resolved.await.expect("postgres is there"), Settled::Lost);

    let (wire, store) = on_a_wire(&server).await;
    wire.lose_reply(2);
    assert!(store.forget(holder.id).await.expect("sent again"));
    assert!(wire.has_lost(), "no reply was lost");
    assert!(!store.forget(holder.id).await.expect("postgres is there"));
}

/// The removal takes effect and its reply is lost. A retry claims the key in the meantime.
#[tokio::test(flavor = "multi_thread")]
async fn a_repeated_removal_does_not_remove_a_later_claim() {
    let server = PostgresServer::start();
    let other = connect(&server.url(), 1, PATIENT).await;
    let (wire, store) = on_a_wire(&server).await;
    complete(&store, "k").await;
    wire.hold_new();
    wire.lose_reply(2);
    let forgetting = tokio::spawn(async move { store.forget(id("k")).await });
    eventually_async("the lost reply", async || wire.has_lost().then_some(())).await;
    let holder = win(&other, claim("k")).await;
    wire.let_new_in();
    assert!(forgetting.await.expect("no panic").expect("sent again"));
    let renewed = other.renew(holder, HOUR).await;
    assert_eq!(renewed.expect("postgres is there"), Settled::Done);
}

#[tokio::test]
async fn a_release_reports_its_effect_after_a_lost_reply() {
    let server = PostgresServer::start();
    let (wire, store) = on_a_wire(&server).await;
    let holder = win(&store, claim("k")).await;
    wire.lose_reply(1);
    let released = store.release(holder).await.expect("sent again");
    assert_eq!(released, Settled::Done);
    assert!(wire.has_lost(), "no reply was lost");
    win(&store, claim("k")).await;

    // After a takeover, the release is still reported as lost.
    let (wire, store) = on_a_wire(&server).await;
    let short = Duration::from_millis(1);
    let claim = || Claim::new(id("overtaken"), FINGERPRINT, short, HOUR);
    let holder = win(&store, claim()).await;
    eventually_async("a takeover", async || {
        let claimed = store.claim(claim()).await;
        matches!(claimed, Ok(Claimed::Fresh { attempt: 2, .. })).then_some(())
    })
    .await;
    wire.lose_reply(1);
    let released = store.release(holder).await.expect("sent again");
    assert_eq!(released, Settled::Lost);
    assert!(wire.has_lost(), "no reply was lost");
}

#[tokio::test]
async fn the_longest_durations_are_accepted() {
    let server = PostgresServer::start();
    connect(&server.url(), MAX, PATIENT).await;
    let store = PostgresStore::builder()
        .url(server.url())
        .timeout(Duration::MAX)
        .sweep_every(Duration::MAX)
        .connect()
        .await
        .expect("postgres is there");
    let claim = Claim::new(id("k"), FINGERPRINT, Duration::MAX, Duration::MAX);
    let holder = win(&store, claim).await;
    let renewed = store.renew(holder, Duration::MAX).await;
    assert_eq!(renewed.expect("postgres is there"), Settled::Done);
    let completed = store.complete(holder, record(b"{}"), Duration::MAX).await;
    assert_eq!(completed.expect("postgres is there"), Settled::Done);
}

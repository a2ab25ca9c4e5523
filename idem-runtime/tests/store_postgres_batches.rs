//! The PostgreSQL store under load: callers who share a transaction.
#![cfg(feature = "postgres")]

use std::time::Duration;

use futures_util::future::join_all;
use idem_runtime::store::{Claim, Claimed, Holder, PostgresStore, Settled, Store, StoreError};
use sqlx::{PgPool, Postgres, Transaction};

use test_support::servers::asking::{HOUR, claim, record, replay, win};
use test_support::servers::eventually_async;
use test_support::servers::postgres::PostgresServer;

const PATIENT: Duration = Duration::from_secs(20);

/// How long the callers get to line up. Callers who come too late go alone, and the test tries again.
const LINE_UP: Duration = Duration::from_millis(30);

/// A store in which one caller, or one batch, of each kind runs at a time.
async fn connect(server: &PostgresServer) -> PostgresStore {
    connect_with(server, PATIENT).await
}

async fn connect_with(server: &PostgresServer, timeout: Duration) -> PostgresStore {
    let builder = PostgresStore::builder().url(server.url()).no_sweeper();
    let store = builder.max_connections(3).timeout(timeout).connect().await;
    store.expect("postgres is there")
}

async fn pool(server: &PostgresServer) -> PgPool {
    let pool = PgPool::connect(&server.url()).await;
    pool.expect("postgres is there")
}

/// A lapsed claim whose row is locked. A claim of its key waits.
async fn locked(
    store: &PostgresStore,
    pool: &PgPool,
    name: &str,
) -> Transaction<'static, Postgres> {
    let short = Duration::from_millis(1);
    let mut lapses = claim(name);
    lapses.lease = short;
    let id = lapses.id.as_bytes().to_vec();
    win(store, lapses).await;
    tokio::time::sleep(short * 2).await;
    let mut transaction = pool.begin().await.expect("postgres is there");
    let lock = "SELECT FROM idem_records WHERE id = $1 FOR UPDATE";
    let lock = sqlx::query(lock).bind(id).execute(&mut *transaction);
    lock.await.expect("the row is free");
    transaction
}

async fn waits_for_a_lock(server: &PostgresServer, sessions: &str) {
    let waiting = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'";
    eventually_async("a session that waits", async || {
        (server.command(waiting) == sessions).then_some(())
    })
    .await;
}

type Claiming = tokio::task::JoinHandle<Result<Claimed, StoreError>>;

/// Claims while another claim runs, so that the claims wait and become one batch. Returns while the batch may still
/// run.
async fn begin_batch(
    store: &PostgresStore,
    server: &PostgresServer,
    pool: &PgPool,
    claims: &[Claim],
    round: usize,
) -> Vec<Claiming> {
    let name = format!("first {round}");
    let lock = locked(store, pool, &name).await;
    let first = tokio::spawn(store.claim(claim(&name)));
    waits_for_a_lock(server, "1").await;
    let claim = |claim: &Claim| tokio::spawn(store.claim(claim.clone()));
    let claims = claims.iter().map(claim).collect();
    tokio::time::sleep(LINE_UP).await;
    lock.rollback().await.expect("postgres is there");
    first.await.expect("no panic").expect("postgres is there");
    claims
}

async fn claim_in_a_batch(
    store: &PostgresStore,
    server: &PostgresServer,
    pool: &PgPool,
    claims: &[Claim],
    round: usize,
) -> Vec<Holder> {
    let claimed = join_all(begin_batch(store, server, pool, claims, round).await).await;
    let held = claims.iter().zip(claimed);
    held.map(|(claim, claimed)| {
        let claimed = claimed.expect("no panic");
        let Ok(Claimed::Fresh { fence, .. }) = claimed else {
            panic!("{claimed:?}");
        };
        Holder {
            id: claim.id,
            owner: claim.owner,
            fence,
        }
    })
    .collect()
}

/// How many transactions have written the rows of this round.
fn transactions(server: &PostgresServer, round: usize) -> String {
    server.command(&format!(
        "SELECT count(DISTINCT xmin::text) FROM idem_records WHERE label = 'round {round}'"
    ))
}

/// New claims whose label is the number of the round.
fn of_round(round: usize) -> Vec<Claim> {
    (0..6)
        .map(|number| {
            let mut claim = claim(&format!("{round} {number}"));
            let label = format!("round {round}");
            claim.origin = claim.origin.with_label(Some(label.into()));
            claim
        })
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn callers_who_wait_share_a_transaction() {
    let server = PostgresServer::start();
    let (store, pool) = (connect(&server).await, pool(&server).await);
    let mut round = 0;
    loop {
        let holders = claim_in_a_batch(&store, &server, &pool, &of_round(round), round).await;
        let of_claims = transactions(&server, round);
        // The first completion goes alone, and the others meet.
        let completions = holders.iter().enumerate().map(|(number, holder)| {
            let record = record(format!("response {number}").as_bytes());
            store.complete(*holder, record, HOUR)
        });
        for completed in join_all(completions).await {
            assert_eq!(completed.expect("postgres is there"), Settled::Done);
        }
        for (number, claim) in of_round(round).into_iter().enumerate() {
            let Ok(Claimed::Recorded { record: kept, .. }) = store.claim(claim).await else {
                panic!("no record of {number}");
            };
            assert_eq!(kept, record(format!("response {number}").as_bytes()));
        }
        if (&*of_claims, &*transactions(&server, round)) == ("1", "2") {
            return;
        }
        round += 1;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_of_claims_survives_a_crash() {
    let settings = ["synchronous_commit=off", "wal_writer_delay=10s"];
    let mut server = PostgresServer::with(&settings);
    let mut round = 0;
    loop {
        let (store, pool) = (connect(&server).await, pool(&server).await);
        let mut claims = of_round(round);
        claim_in_a_batch(&store, &server, &pool, &claims, round).await;
        let is_batch = transactions(&server, round) == "1";
        server.kill();
        server.start_again();
        let mut other = claims.swap_remove(0);
        other.owner = claim("other").owner;
        let claimed = connect(&server).await.claim(other).await;
        assert!(
            matches!(claimed, Ok(Claimed::InFlight { .. })),
            "{claimed:?}"
        );
        if is_batch {
            break;
        }
        round += 1;
    }
}

/// A batch with a lapsed claim, a claim in flight, and equal keys. Waits until all of them share a transaction.
#[tokio::test(flavor = "multi_thread")]
async fn one_of_the_equal_keys_in_a_batch_wins() {
    let server = PostgresServer::start();
    let (store, pool) = (connect(&server).await, pool(&server).await);
    let mut round = 0;
    loop {
        let (lapsed, held) = (format!("lapsed {round}"), format!("held {round}"));
        drop(locked(&store, &pool, &lapsed).await);
        win(&store, claim(&held)).await;
        let mut claims = of_round(round);
        let new = claims.len();
        claims.extend((0..3).map(|_| claim(&format!("equal {round}"))));
        claims.extend([claim(&lapsed), claim(&held)]);
        let claiming = begin_batch(&store, &server, &pool, &claims, round).await;
        let claimed = join_all(claiming).await.into_iter();
        let claimed: Vec<_> = claimed
            .map(|it| it.expect("no panic").expect("postgres is there"))
            .collect();
        let won = |claimed: &&Claimed| matches!(claimed, Claimed::Fresh { attempt: 1, .. });
        let waits = |claimed: &&Claimed| matches!(claimed, Claimed::InFlight { .. });
        let (new, others) = claimed.split_at(new);
        assert_eq!(new.iter().filter(won).count(), new.len(), "{new:?}");
        assert_eq!(others[..3].iter().filter(won).count(), 1, "{others:?}");
        assert_eq!(others[..3].iter().filter(waits).count(), 2, "{others:?}");
        assert!(
            matches!(others[3], Claimed::Fresh { attempt: 2, .. }),
            "{others:?}"
        );
        assert!(waits(&&others[4]), "{others:?}");
        if transactions(&server, round) == "1" {
            return;
        }
        round += 1;
    }
}

/// Otherwise its fence could be lower than that of another claim of the id, which was forgotten since.
#[tokio::test(flavor = "multi_thread")]
async fn a_claim_in_a_batch_waits_for_the_lock_of_its_id() {
    let server = PostgresServer::start();
    let (store, pool) = (connect(&server).await, pool(&server).await);
    let claims = of_round(0);
    let (_, number) = claims[0]
        .id
        .as_bytes()
        .split_last_chunk()
        .expect("32 bytes");
    let mut transaction = pool.begin().await.expect("postgres is there");
    let lock = sqlx::query("SELECT pg_advisory_xact_lock($1)").bind(i64::from_be_bytes(*number));
    let lock = lock.execute(&mut *transaction).await;
    lock.expect("nobody holds it");
    let mut claiming = begin_batch(&store, &server, &pool, &claims, 0).await;
    let held_up = claiming.remove(0);
    for claimed in join_all(claiming).await {
        let claimed = claimed.expect("no panic");
        assert!(matches!(claimed, Ok(Claimed::Fresh { .. })), "{claimed:?}");
    }
    waits_for_a_lock(&server, "1").await;
    transaction.commit().await.expect("postgres is there");
    let claimed = held_up.await.expect("no panic");
    assert!(matches!(claimed, Ok(Claimed::Fresh { .. })), "{claimed:?}");
}

/// Nothing but its own row delays a claim.
#[tokio::test(flavor = "multi_thread")]
async fn a_locked_row_delays_only_the_claim_of_its_key() {
    let server = PostgresServer::start();
    let (store, pool) = (connect(&server).await, pool(&server).await);
    for round in 0..3 {
        let name = format!("locked {round}");
        let lock = locked(&store, &pool, &name).await;
        let mut claims = of_round(round);
        claims.push(claim(&name));
        let mut claiming = begin_batch(&store, &server, &pool, &claims, round).await;
        let last = claiming.pop().expect("the claim of the locked key");
        for claimed in join_all(claiming).await {
            let claimed = claimed.expect("no panic");
            assert!(matches!(claimed, Ok(Claimed::Fresh { .. })), "{claimed:?}");
        }
        lock.rollback().await.expect("postgres is there");
        let claimed = last.await.expect("no panic");
        assert!(
            matches!(claimed, Ok(Claimed::Fresh { attempt: 2, .. })),
            "{claimed:?}"
        );
    }
}

/// Without standbys, a slow commit is as durable as a quick one.
#[tokio::test(flavor = "multi_thread")]
async fn a_slow_batch_is_not_sent_again() {
    let server = PostgresServer::start();
    let timeout = Duration::from_secs(2);
    let (store, pool) = (connect_with(&server, timeout).await, pool(&server).await);
    server.command(
        "CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS
        'BEGIN PERFORM pg_sleep(0.12); RETURN new; END';
        CREATE TRIGGER slow BEFORE INSERT ON idem_records FOR EACH ROW EXECUTE FUNCTION slow()",
    );
    for round in 0..5 {
        let claims = begin_batch(&store, &server, &pool, &of_round(round), round).await;
        join_all(claims).await;
        // In other rounds, callers came too late for the batch.
        if transactions(&server, round) == "1" {
            return;
        }
    }
    panic!("each claim was sent alone");
}

/// A replay is read before the batch of claims, which waits for the disk.
#[tokio::test(flavor = "multi_thread")]
async fn a_replay_does_not_wait_for_the_claims_of_others() {
    let server = PostgresServer::start();
    let (store, pool) = (connect(&server).await, pool(&server).await);
    let holder = win(&store, claim("done")).await;
    let completed = store.complete(holder, record(b"done"), HOUR).await;
    assert_eq!(completed.expect("postgres is there"), Settled::Done);
    let lock = locked(&store, &pool, "locked").await;
    let claiming = tokio::spawn(store.claim(claim("locked")));
    waits_for_a_lock(&server, "1").await;
    // The only lane of the claims is taken.
    let replays = (0..20).map(|_| replay(&store, "done"));
    for replayed in join_all(replays).await {
        assert_eq!(replayed, record(b"done"));
    }
    lock.rollback().await.expect("postgres is there");
    let claimed = claiming.await.expect("no panic");
    assert!(matches!(claimed, Ok(Claimed::Fresh { .. })), "{claimed:?}");
}

//! The PostgreSQL store with a stopped clock that the tests set. Durations must end exactly on
//! time.
#![cfg(feature = "postgres")]

use test_support::servers;

use std::time::Duration;

use idem_runtime::store::{Claim, Claimed, PostgresStore, Settled, Store};

use servers::asking::{FINGERPRINT, HOUR, claim, id, record, replay, win};
use servers::postgres::PostgresServer;

/// A server whose `clock_timestamp()` and `transaction_timestamp()` return the time in a table, and a store on that
/// server.
///
/// A statement that used another clock would see a different time.
async fn with_a_clock() -> (PostgresServer, PostgresStore) {
    let server = PostgresServer::start();
    for statement in [
        "CREATE SCHEMA stopped",
        "CREATE TABLE stopped.clock AS SELECT '2020-01-01Z'::timestamptz AS now",
        "CREATE FUNCTION stopped.clock_timestamp() RETURNS timestamptz LANGUAGE sql VOLATILE
         AS 'SELECT now FROM stopped.clock'",
        "CREATE FUNCTION stopped.transaction_timestamp() RETURNS timestamptz LANGUAGE sql VOLATILE
         AS 'SELECT now FROM stopped.clock'",
        "ALTER ROLE desk SET search_path = stopped, pg_catalog",
    ] {
        server.command(statement);
    }
    let builder = PostgresStore::builder().url(server.url()).no_sweeper();
    let store = builder.timeout(Duration::from_secs(20)).connect().await;
    (server, store.expect("postgres is there"))
}

fn pass(server: &PostgresServer, time: &str) {
    server.command(&format!(
        "UPDATE stopped.clock SET now = now + interval '{time}'"
    ));
}

#[tokio::test]
async fn a_lease_lapses_at_the_exact_microsecond() {
    let (server, store) = with_a_clock().await;
    win(&store, claim("k")).await;
    pass(&server, "59 minutes 59.999999 seconds");
    let early = store.claim(claim("k")).await;
    assert!(matches!(early, Ok(Claimed::InFlight { .. })), "{early:?}");
    pass(&server, "1 microsecond");
    let taken_over = store.claim(claim("k")).await;
    assert!(
        matches!(taken_over, Ok(Claimed::Fresh { attempt: 2, .. })),
        "{taken_over:?}"
    );
}

/// A claim may read the clock first, but reach the row after a transition that read the clock
/// later.
#[tokio::test]
async fn abandoning_a_lapsed_claim_does_not_extend_its_lease() {
    let (server, store) = with_a_clock().await;
    let holder = win(&store, claim("k")).await;
    pass(&server, "90 minutes");
    let abandoned = store.abandon(holder).await;
    assert_eq!(abandoned.expect("postgres is there"), Settled::Done);
    pass(&server, "-15 minutes");
    let taken_over = store.claim(claim("k")).await;
    assert!(
        matches!(taken_over, Ok(Claimed::Fresh { attempt: 2, .. })),
        "{taken_over:?}"
    );
}

#[tokio::test]
async fn an_unknown_outcome_is_forgotten_at_the_exact_microsecond() {
    let (server, store) = with_a_clock().await;
    let short = Duration::from_millis(1);
    let holder = win(&store, Claim::new(id("k"), FINGERPRINT, HOUR, short)).await;
    pass(&server, "1 hour 0.999 milliseconds");
    let late = store.look_up(id("k")).await.expect("postgres is there");
    assert!(late.is_some());
    pass(&server, "1 microsecond");
    let gone = store.look_up(id("k")).await.expect("postgres is there");
    assert!(gone.is_none(), "{gone:?}");
    // The claim has no holder, although its row still exists.
    let completed = store.complete(holder, record(b"late"), HOUR).await;
    assert_eq!(completed.expect("postgres is there"), Settled::Lost);
    let first = store.claim(claim("k")).await;
    assert!(
        matches!(first, Ok(Claimed::Fresh { attempt: 1, .. })),
        "{first:?}"
    );
}

#[tokio::test]
async fn a_record_expires_at_the_exact_microsecond() {
    let (server, store) = with_a_clock().await;
    let holder = win(&store, claim("k")).await;
    let completed = store.complete(holder, record(b"{}"), HOUR).await;
    assert_eq!(completed.expect("postgres is there"), Settled::Done);
    pass(&server, "59 minutes 59.999999 seconds");
    assert_eq!(replay(&store, "k").await, record(b"{}"));
    assert_eq!(store.sweep().await.expect("postgres is there"), 0);
    pass(&server, "1 microsecond");
    let again = store.claim(claim("k")).await;
    assert!(
        matches!(again, Ok(Claimed::Fresh { attempt: 1, .. })),
        "{again:?}"
    );
}

#[tokio::test]
async fn the_sweeper_removes_records_at_the_exact_microsecond() {
    let (server, store) = with_a_clock().await;
    let holder = win(&store, claim("k")).await;
    let completed = store.complete(holder, record(b"{}"), HOUR).await;
    assert_eq!(completed.expect("postgres is there"), Settled::Done);
    pass(&server, "1 hour");
    assert_eq!(store.sweep().await.expect("postgres is there"), 1);
}

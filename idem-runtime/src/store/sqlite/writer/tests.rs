//! The groups of the writer.

use std::collections::BTreeSet;
use std::path::Path;

use futures_util::future::{join_all, poll_immediate};
use http::StatusCode;
use sqlx::sqlite::SqliteSynchronous;

use super::*;
use crate::request::fingerprint::Fingerprint;
use crate::request::record_id::RecordId;
use crate::store::sqlite::setup;
use crate::store::{Claim, OnUnknown, Record, SqliteStore};

/// How many transactions the log has: the frames that end one. A frame has a page of 4 KiB.
fn commits(log: &Path) -> usize {
    const FRAME: usize = 24 + 4096;
    let log = std::fs::read(log).expect("the log is readable");
    let frames = log[32..].chunks_exact(FRAME);
    frames.filter(|frame| frame[4..8] != [0; 4]).count()
}

fn claims(from: u8, to: u8) -> impl Iterator<Item = Transition> {
    (from..to).map(|n| {
        let (id, second) = (RecordId::from_bytes([n; 32]), Duration::from_secs(1));
        let fingerprint = Fingerprint::from_bytes([7; 32]);
        Transition::Claim(Box::new(Claim::new(id, fingerprint, second, second)))
    })
}

/// The writer of a new store, and another connection that has locked the file.
async fn locked(folder: &Path) -> (Writer, SqliteConnection) {
    locked_with(folder, Duration::from_secs(60)).await
}

async fn locked_with(folder: &Path, busy_timeout: Duration) -> (Writer, SqliteConnection) {
    let path = folder.join("idem.db");
    let builder = SqliteStore::builder().path(&path).no_sweeper();
    let store = builder.busy_timeout(busy_timeout).open().await;
    let writer = store.expect("the file opens").0.writer.clone();
    let options = SqliteConnectOptions::new().filename(&path);
    let mut other = options.connect().await.expect("the file opens");
    let begin = sqlx::query("BEGIN IMMEDIATE").execute(&mut other);
    begin.await.expect("it locks");
    (writer, other)
}

/// The first claim waits for the lock of another connection. All others wait behind it.
#[tokio::test]
async fn waiting_transitions_share_one_transaction() {
    let folder = tempfile::tempdir().expect("a folder");
    let (writer, mut other) = locked(folder.path()).await;
    let before = commits(&folder.path().join("idem.db-wal"));

    let mut waiting: Vec<_> = claims(0, 100)
        .map(|claim| Box::pin(writer.run(claim)))
        .collect();
    for run in &mut waiting {
        assert!(poll_immediate(run).await.is_none());
    }
    let end = sqlx::query("ROLLBACK").execute(&mut other);
    end.await.expect("it unlocks");
    let mut fences = BTreeSet::new();
    for outcome in join_all(waiting).await {
        let claimed = outcome.expect("the store works").claimed();
        let Claimed::Fresh { fence, .. } = claimed else {
            panic!("{claimed:?}");
        };
        assert!(fences.insert(fence), "two claims have the fence {fence}");
    }
    let transactions = commits(&folder.path().join("idem.db-wal")) - before;
    assert!(transactions <= 2, "{transactions} transactions");
}

/// Each claim finds the claim of another caller. Readers reply to most of such claims before they reach the writer.
#[tokio::test]
async fn a_group_whose_claims_all_lose_writes_nothing() {
    let folder = tempfile::tempdir().expect("a folder");
    let (writer, mut other) = locked(folder.path()).await;
    let end = sqlx::query("ROLLBACK").execute(&mut other);
    end.await.expect("it unlocks");
    let run = async || join_all(claims(0, 20).map(|claim| writer.run(claim))).await;
    run().await;
    let before = commits(&folder.path().join("idem.db-wal"));
    for outcome in run().await {
        let claimed = outcome.expect("the store works").claimed();
        assert!(matches!(claimed, Claimed::InFlight { .. }), "{claimed:?}");
    }
    assert_eq!(commits(&folder.path().join("idem.db-wal")), before);
}

/// Completions of 20 claims, and a second one of the last claim with another record.
#[tokio::test]
async fn each_completion_in_a_group_gets_its_own_result() {
    let folder = tempfile::tempdir().expect("a folder");
    let (writer, mut other) = locked(folder.path()).await;
    let end = sqlx::query("ROLLBACK").execute(&mut other);
    end.await.expect("it unlocks");
    let mut completions = Vec::new();
    for claim in claims(0, 20) {
        let Transition::Claim(wanted) = claim.clone() else {
            unreachable!("a claim");
        };
        let claimed = writer.run(claim).await.expect("the store works").claimed();
        let Claimed::Fresh { fence, .. } = claimed else {
            panic!("{claimed:?}");
        };
        let Claim { id, owner, .. } = *wanted;
        completions.push(Holder { id, owner, fence });
    }
    completions.push(completions[19]);
    completions[7].fence += 1;
    let record = |status| Record::not_kept(Fingerprint::from_bytes([7; 32]), status);
    let begin = sqlx::query("BEGIN IMMEDIATE").execute(&mut other);
    begin.await.expect("it locks");
    let mut waiting: Vec<_> = completions
        .into_iter()
        .enumerate()
        .map(|(at, holder)| {
            let status = if at == 20 {
                StatusCode::ACCEPTED
            } else {
                StatusCode::OK
            };
            let day = Duration::from_secs(24 * 60 * 60);
            let complete = Transition::Complete(holder, record(status), day);
            Box::pin(writer.run(complete))
        })
        .collect();
    for run in &mut waiting {
        assert!(poll_immediate(run).await.is_none());
    }
    let end = sqlx::query("ROLLBACK").execute(&mut other);
    end.await.expect("it unlocks");
    for (at, outcome) in join_all(waiting).await.into_iter().enumerate() {
        let is_done = outcome.expect("the store works").took_effect();
        assert_eq!(is_done, at != 7 && at != 20, "{at}");
    }
}

/// A claim whose caller has gone would hold the key for a lease, and no handler would run.
#[tokio::test]
async fn a_claim_whose_caller_has_gone_is_not_made() {
    let folder = tempfile::tempdir().expect("a folder");
    let (writer, mut other) = locked(folder.path()).await;
    // The first one may be in the transaction that waits.
    let mut runs: Vec<_> = claims(0, 2)
        .map(|claim| Box::pin(writer.run(claim)))
        .collect();
    for run in &mut runs {
        assert!(poll_immediate(&mut *run).await.is_none());
    }
    let gone = runs.pop().expect("two claims");
    drop(gone);
    let end = sqlx::query("ROLLBACK").execute(&mut other);
    end.await.expect("it unlocks");
    join_all(runs).await;
    let again = claims(1, 2).map(|claim| writer.run(claim));
    let again = join_all(again).await.pop().expect("one claim");
    let claimed = again.expect("the store works").claimed();
    assert!(
        matches!(claimed, Claimed::Fresh { attempt: 1, .. }),
        "{claimed:?}"
    );
}

#[tokio::test]
async fn every_connection_syncs_each_commit() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("idem.db");
    for (synchronous, number) in [
        (None, 2),
        (Some(SqliteSynchronous::Extra), 3),
        (Some(SqliteSynchronous::Normal), 1),
    ] {
        let mut builder = SqliteStore::builder().path(&path);
        if let Some(synchronous) = synchronous {
            builder = builder.synchronous(synchronous);
        }
        let options = builder.options().create_if_missing(true);
        let mut connection = options.connect().await.expect("the file opens");
        let row = sqlx::query("PRAGMA synchronous").fetch_one(&mut connection);
        let level: i64 = column(&row.await.expect("a row"), 0).expect("a number");
        assert_eq!(level, number);
    }
}

/// The writer of a new store with a limit, without its thread.
async fn limited(path: &Path) -> Running {
    let options = SqliteStore::builder().path(path).options();
    let statements = Arc::new(Statements::new("idem_records").expect("a name"));
    let connection = setup::open(&options, &statements, true, Duration::ZERO).await;
    Running {
        connection: Some(connection.expect("the file opens")),
        reserve: Reserve::of_database(path),
        reservations: Reservations::default(),
        settings: Settings {
            options,
            instance: Arc::new(Instance::start(path, &statements.table)),
            statements,
            clock: Arc::default(),
            busy_timeout: Duration::ZERO,
            sweep_every: None,
            max_bytes: Some(1 << 30),
            observer: Arc::default(),
        },
    }
}

/// A file with many unknown outcomes is counted seldom. The transitions of single claims adjust the kept count.
#[tokio::test]
async fn the_kept_count_of_reserving_claims_is_that_of_the_file() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut running = limited(&folder.path().join("idem.db")).await;
    let no_claim = Transition::Forget(RecordId::from_bytes([0xff; 32]));
    running.transact(&[no_claim]).await.expect("it writes");
    running.reservations.pretend_a_slow_count();

    let mut holders = Vec::new();
    let hour = Duration::from_secs(3600);
    let of_an_hour = |transition| match transition {
        Transition::Claim(mut claim) => {
            (claim.lease, claim.retention) = (hour, hour);
            Transition::Claim(claim)
        }
        other => other,
    };
    let claims: Vec<_> = claims(0, 10).map(of_an_hour).collect();
    let outcomes = running.transact(&claims).await.expect("it writes");
    for (claim, outcome) in claims.iter().zip(outcomes) {
        let claimed = outcome.expect("the store works").claimed();
        let (Transition::Claim(claim), Claimed::Fresh { fence, .. }) = (claim, claimed) else {
            panic!("a claim that wins");
        };
        let (id, owner) = (claim.id, claim.owner);
        holders.push(Holder { id, owner, fence });
    }
    assert_eq!(running.reservations.claims(), 10);

    let record = || Record::not_kept(Fingerprint::from_bytes([7; 32]), StatusCode::OK);
    let again = |at: usize| {
        let Transition::Claim(mut claim) = claims[at].clone() else {
            unreachable!("a claim");
        };
        claim.owner = Claim::new(claim.id, claim.fingerprint, hour, hour).owner;
        claim.on_unknown = OnUnknown::Rerun;
        Transition::Claim(claim)
    };
    let mut late = holders[5];
    late.fence += 1;
    for (transition, reserving) in [
        (again(0), 10),
        (Transition::Renew(holders[0], hour), 10),
        (Transition::Complete(holders[0], record(), hour), 9),
        (Transition::Complete(holders[0], record(), hour), 9),
        (Transition::Forget(holders[0].id), 9),
        (Transition::Release(holders[1]), 8),
        (Transition::Abandon(holders[2]), 7),
        (Transition::Abandon(holders[2]), 7),
        (Transition::Abandon(holders[3]), 6),
        (again(3), 7),
        (
            Transition::Resolve(holders[2].id, holders[2].fence, record(), hour),
            7,
        ),
        (Transition::Forget(holders[4].id), 6),
        (Transition::Release(late), 6),
        (Transition::EndLeases(running.settings.instance.number()), 0),
    ] {
        let outcomes = running.transact(std::slice::from_ref(&transition)).await;
        outcomes.expect("it writes");
        let kept = running.reservations.claims();
        let count = &running.settings.statements.count_claims;
        let connection = running.connection.as_mut().expect("it is open");
        let row = query(count).bind(now()).fetch_one(connection).await;
        let counted = number(&row.expect("a row"), 0).expect("a number");
        assert_eq!((kept, counted), (reserving, reserving), "{transition:?}");
    }
}

/// The second caller arrives just after the first began to wait.
#[tokio::test]
async fn a_caller_that_arrives_while_others_wait_for_the_lock_waits_no_longer_than_they() {
    let folder = tempfile::tempdir().expect("a folder");
    let busy_timeout = Duration::from_secs(2);
    let (writer, _other) = locked_with(folder.path(), busy_timeout).await;
    let run = async |claim| {
        let begun = Instant::now();
        let outcome = writer.run(claim).await;
        assert!(matches!(outcome, Err(StoreError::Busy)), "{outcome:?}");
        begun.elapsed()
    };
    let later = async |claim| {
        tokio::time::sleep(Duration::from_millis(100)).await;
        run(claim).await
    };
    let mut claims = claims(0, 2);
    let (first, second) = (claims.next(), claims.next());
    let waits = tokio::join!(run(first.expect("two")), later(second.expect("two")));
    for wait in [waits.0, waits.1] {
        assert!(
            wait >= busy_timeout && wait < busy_timeout * 3 / 2,
            "{waits:?}"
        );
    }
}

#[tokio::test]
async fn a_caller_whose_time_is_over_does_not_end_the_wait_of_the_others() {
    let folder = tempfile::tempdir().expect("a folder");
    let (writer, mut other) = locked_with(folder.path(), Duration::from_secs(2)).await;
    let late = async |claim| {
        tokio::time::sleep(Duration::from_secs(1)).await;
        writer.run(claim).await
    };
    let unlock = async {
        tokio::time::sleep(Duration::from_millis(2_500)).await;
        sqlx::query("ROLLBACK").execute(&mut other).await
    };
    let mut claims = claims(0, 2);
    let (first, second) = (claims.next(), claims.next());
    let (first, second, unlocked) = tokio::join!(
        writer.run(first.expect("two")),
        late(second.expect("two")),
        unlock
    );
    unlocked.expect("it unlocks");
    assert!(matches!(first, Err(StoreError::Busy)), "{first:?}");
    let claimed = second.expect("the lock is free").claimed();
    assert!(matches!(claimed, Claimed::Fresh { .. }), "{claimed:?}");
}

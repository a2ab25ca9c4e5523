//! The power goes at every moment of a run on `SqliteStore`. Nothing that was acknowledged is lost.
//!
//! `IDEM_SEED=7` selects the transitions and the sectors. `IDEM_LOSSES=20` tries more random losses at each moment.

mod history;

use std::collections::HashSet;
use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash, Hasher};
use std::path::Path;

use idem_power::{Disk, Files, Kept};
use idem_runtime::store::SqliteStore;
use sqlx::sqlite::{SqliteConnectOptions, SqlitePoolOptions, SqliteSynchronous};
use test_support::servers::eventually;

use history::History;

const FILE: &str = "idem.db";
const LOG: &str = "idem.db-wal";
const RESERVE: &str = "idem.db-reserve";

fn number(variable: &str) -> Option<u64> {
    let value = std::env::var(variable).ok()?;
    Some(value.parse().expect("a number"))
}

/// With a checkpoint after every few pages, so that a short run has many.
async fn open(folder: &Path, synchronous: SqliteSynchronous) -> SqliteStore {
    let options = SqliteConnectOptions::new()
        .filename(folder.join(FILE))
        .pragma("wal_autocheckpoint", "12");
    let pool = SqlitePoolOptions::new().connect_lazy_with(options);
    let builder = SqliteStore::builder().pool(pool).synchronous(synchronous);
    builder.no_sweeper().open().await.expect("the file opens")
}

/// Opens the files that are left, and compares them with what was acknowledged at this moment.
async fn check(
    files: &Files,
    reserve: &Path,
    history: &History,
    moment: usize,
) -> Result<(), String> {
    let folder = tempfile::tempdir().expect("a folder");
    for (name, content) in files {
        std::fs::write(folder.path().join(name), content).expect("it is writable");
    }
    // Otherwise each store would write 4 MiB before its first claim.
    let link = folder.path().join(RESERVE);
    std::fs::hard_link(reserve, link).expect("the folders are on one disk");
    let store = SqliteStore::open(folder.path().join(FILE)).await;
    let store = store.map_err(|error| format!("the file does not open: {error}"))?;
    history.check(&store, moment).await
}

fn hash(files: &Files) -> u64 {
    let mut hasher = DefaultHasher::new();
    files.hash(&mut hasher);
    hasher.finish()
}

/// Runs transitions of two stores on one file, and lets the power go at every moment, or at every `step`. Returns the
/// losses of something acknowledged.
async fn losses(synchronous: SqliteSynchronous, step: usize) -> Vec<String> {
    let seed = number("IDEM_SEED").unwrap_or_else(|| fastrand::u64(..));
    println!("IDEM_SEED={seed}");
    let folder = tempfile::tempdir().expect("a folder");
    let disk = Disk::new(folder.path());
    let mut history = History::default();
    for session in 0..2 {
        let stores = [
            open(folder.path(), synchronous).await,
            open(folder.path(), synchronous).await,
        ];
        history.record(&disk, &stores, session, seed).await;
        drop(stores);
        // The last connection copies the log into the file, and removes the log.
        let log = folder.path().join(LOG);
        eventually("the file is closed", || (!log.exists()).then_some(()));
    }

    let mut random = fastrand::Rng::with_seed(seed);
    let mut disks = HashSet::new();
    let mut lost = Vec::new();
    let tries = number("IDEM_LOSSES").unwrap_or(1);
    for moment in (0..=disk.now()).step_by(step) {
        let mut all = vec![Kept::Nothing, Kept::Everything];
        for _ in 0..tries {
            all.push(Kept::SomeWrites(random.u64(..)));
            all.push(Kept::SomeSectors(random.u64(..)));
        }
        for kept in all {
            let files = disk.after_loss(moment, kept);
            // Files that were accepted after more acknowledgements are fine after fewer too.
            if !disks.insert((hash(&files), history.acknowledged(moment))) {
                continue;
            }
            if let Err(why) = check(&files, &folder.path().join(RESERVE), &history, moment).await {
                lost.push(format!("after {moment} events, kept {kept:?}: {why}"));
            }
        }
    }
    println!(
        "{} events, {} transitions, {} different disks, {} of them lost something",
        disk.now(),
        history.len(),
        disks.len(),
        lost.len()
    );
    lost
}

#[tokio::test(flavor = "multi_thread")]
async fn a_loss_of_power_loses_nothing_that_was_acknowledged() {
    let lost = losses(SqliteSynchronous::Full, 1).await;
    assert!(lost.is_empty(), "{}", lost.join("\n"));
}

/// Otherwise the test above could not fail.
#[tokio::test(flavor = "multi_thread")]
async fn without_a_sync_for_each_commit_a_loss_of_power_is_noticed() {
    let lost = losses(SqliteSynchronous::Normal, 9).await;
    let is_acknowledged = |why: &String| why.contains("was acknowledged");
    assert!(lost.iter().any(is_acknowledged), "nothing was lost");
    // The transitions are lost from the end, and the file stays intact.
    assert!(lost.iter().all(is_acknowledged), "{}", lost.join("\n"));
}

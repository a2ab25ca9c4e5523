//! The contract suite on the SQLite store, with a separate file for each test.
#![cfg(all(feature = "sqlite", feature = "testing"))]

use std::path::PathBuf;
use std::time::Duration;

use idem_runtime::store::{NearCache, SqliteStore};
use idem_runtime::testing::Contract;
use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{AssertSqlSafe, ConnectOptions};

async fn open(path: &PathBuf) -> SqliteStore {
    let builder = SqliteStore::builder().path(path);
    // A test machine may be busy.
    let store = builder.busy_timeout(Duration::from_secs(20)).open().await;
    store.expect("the file opens")
}

/// Makes an entry unreadable.
fn damaged(contract: Contract, path: PathBuf) -> Contract {
    contract.damage_with(move |id| {
        let options = SqliteConnectOptions::new().filename(&path);
        let options = options.busy_timeout(Duration::from_secs(20));
        async move {
            let mut connection = options.connect().await.expect("the file opens");
            let damage = format!("UPDATE idem_records SET version = 9 WHERE id = x'{id}'");
            let damage = sqlx::query(AssertSqlSafe(damage));
            damage
                .execute(&mut connection)
                .await
                .expect("it can be written");
        }
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn sqlite_keeps_every_rule() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("idem.db");
    let (store, other) = (open(&path).await, open(&path).await);
    let contract = Contract::of_two(store, other).rounds(50);
    damaged(contract, path).assert().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_near_cache_over_sqlite_keeps_every_rule() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("idem.db");
    let contract = Contract::of(NearCache::new(open(&path).await)).rounds(5);
    damaged(contract, path).assert().await;
}

/// Two versions of a service, in the second step of a rotation of its sealing keys.
#[cfg(feature = "seal")]
#[tokio::test(flavor = "multi_thread")]
async fn a_sealed_store_in_sqlite_keeps_every_rule() {
    use idem_runtime::store::{Keys, Sealed};
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("idem.db");
    let (before, after) = (open(&path).await, open(&path).await);
    let before = Sealed::around(before, Keys::new().primary(1, [1; 32]).also(2, [2; 32]));
    let after = Sealed::around(after, Keys::new().primary(2, [2; 32]).also(1, [1; 32]));
    let contract = Contract::of_two(before, after);
    damaged(contract.rounds(5), path).assert().await;
}

//! Two processes on one SQLite file that are killed or stopped again and again, while clients retry.

use std::time::Duration;

use axum_idem::Idempotency;
use axum_idem::store::SqliteStore;
use sqlx::Sqlite;
use sqlx::sqlite::SqliteConnection;

use crate::bank::Bank;
use crate::servers::eventually_async;
use crate::shared::chaos::{self, LEASE, Ledger};

const PATH: &str = "AXUM_IDEM_TEST_CHAOS_PATH";
/// Below the lease, so that a lease is renewed while a transaction holds the lock.
const BUSY_TIMEOUT: Duration = Duration::from_millis(150);

const TABLES: &str = "CREATE TABLE effects (key TEXT NOT NULL, run TEXT NOT NULL);
    CREATE TABLE accounts (id INTEGER PRIMARY KEY, transfers INTEGER NOT NULL);
    INSERT INTO accounts VALUES (0, 0), (1, 0), (2, 0), (3, 0)";

impl Ledger for Sqlite {
    async fn write(
        connection: &mut SqliteConnection,
        key: &str,
        run: &str,
        account: i32,
    ) -> sqlx::Result<()> {
        let insert = sqlx::query("INSERT INTO effects (key, run) VALUES (?1, ?2)");
        let insert = insert.bind(key.to_owned()).bind(run.to_owned());
        insert.execute(&mut *connection).await?;
        let update = sqlx::query("UPDATE accounts SET transfers = transfers + 1 WHERE id = ?1");
        update.bind(account).execute(connection).await?;
        Ok(())
    }

    async fn effects(bank: &Bank) -> Vec<(String, String)> {
        let rows = sqlx::query_as("SELECT key, run FROM effects");
        rows.fetch_all(&bank.pool).await.expect("read")
    }

    async fn transfers(bank: &Bank) -> i64 {
        let sum = sqlx::query_scalar("SELECT sum(transfers) FROM accounts");
        sum.fetch_one(&bank.pool).await.expect("read")
    }
}

/// Not a test of its own: the chaos test starts it as a process that it can kill.
#[tokio::test]
async fn member_of_the_chaos() {
    let Ok(path) = std::env::var(PATH) else {
        return;
    };
    let bank = Bank::open(path.as_ref()).await;
    let builder = SqliteStore::builder().path(path).busy_timeout(BUSY_TIMEOUT);
    // On a busy machine, the other member holds the lock for longer.
    let open = async || builder.clone().open().await.ok();
    let store = eventually_async("the file opens", open).await;
    let idem = Idempotency::builder().store(store).lease(LEASE).build();
    chaos::serve(bank, idem).await;
}

async fn check(path: &'static str) {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("bank.db");
    let bank = Bank::open(&file).await;
    // The store changes the journal mode.
    let store = SqliteStore::open(&file).await.expect("the file opens");
    drop(store);
    let tables = sqlx::raw_sql(TABLES).execute(&bank.pool).await;
    tables.expect("created");
    let file = file.to_str().expect("UTF-8").to_owned();
    chaos::check(&bank, path, "SQLite", vec![(PATH, file)]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn kills_neither_repeat_nor_lose_a_committed_effect() {
    check("/flagged").await;
    check("/unflagged").await;
}

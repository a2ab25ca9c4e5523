//! Two processes on one PostgreSQL that are killed or stopped again and again, while clients retry.

use axum_idem::Idempotency;
use axum_idem::store::PostgresStore;
use sqlx::Postgres;
use sqlx::postgres::PgConnection;

use crate::bank::Bank;
use crate::servers::postgres::PostgresServer;
use crate::shared::chaos::{self, LEASE, Ledger};

const URL: &str = "AXUM_IDEM_TEST_CHAOS_URL";
const LEVEL: &str = "AXUM_IDEM_TEST_CHAOS_LEVEL";

const TABLES: &str = "CREATE TABLE effects (key text NOT NULL, run text NOT NULL);
    CREATE TABLE accounts (id int PRIMARY KEY, transfers bigint NOT NULL);
    INSERT INTO accounts SELECT id, 0 FROM generate_series(0, 3) AS id";

impl Ledger for Postgres {
    async fn write(
        connection: &mut PgConnection,
        key: &str,
        run: &str,
        account: i32,
    ) -> sqlx::Result<()> {
        let insert = sqlx::query("INSERT INTO effects (key, run) VALUES ($1, $2)");
        insert.bind(key).bind(run).execute(&mut *connection).await?;
        let update = sqlx::query("UPDATE accounts SET transfers = transfers + 1 WHERE id = $1");
        update.bind(account).execute(connection).await?;
        Ok(())
    }

    async fn effects(bank: &Bank) -> Vec<(String, String)> {
        let rows = sqlx::query_as("SELECT key, run FROM effects");
        rows.fetch_all(&bank.pool).await.expect("read")
    }

    async fn transfers(bank: &Bank) -> i64 {
        let sum = sqlx::query_scalar("SELECT sum(transfers)::bigint FROM accounts");
        sum.fetch_one(&bank.pool).await.expect("read")
    }
}

/// Not a test of its own: the chaos test starts it as a process that it can kill.
#[tokio::test]
async fn member_of_the_chaos() {
    let Ok(url) = std::env::var(URL) else {
        return;
    };
    let levels = ["READ COMMITTED", "SERIALIZABLE"];
    let level = std::env::var(LEVEL).expect("set");
    let level = levels.into_iter().find(|it| *it == level).expect("a level");
    let bank = Bank::open(&url).await.isolated(level);
    let store = PostgresStore::connect(url).await.expect("connected");
    let idem = Idempotency::builder().store(store).lease(LEASE).build();
    chaos::serve(bank, idem).await;
}

async fn check(path: &'static str, level: &'static str) {
    let postgres = PostgresServer::start();
    postgres.command(TABLES);
    let bank = Bank::open(&postgres.url()).await;
    let environment = vec![(URL, postgres.url()), (LEVEL, level.to_owned())];
    chaos::check(&bank, path, level, environment).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn kills_neither_repeat_nor_lose_a_committed_effect() {
    check("/flagged", "READ COMMITTED").await;
    check("/unflagged", "READ COMMITTED").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn kills_neither_repeat_nor_lose_a_serializable_effect() {
    check("/flagged", "SERIALIZABLE").await;
    check("/unflagged", "SERIALIZABLE").await;
}

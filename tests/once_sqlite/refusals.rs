//! Commits that are refused, because the record and the effect would not be one.

use std::path::{Path, PathBuf};

use axum::Router;
use axum::extract::State;
use axum::http::header::RETRY_AFTER;
use axum::http::{Method, StatusCode};
use axum::response::Response;
use axum::routing::post;
use axum_idem::store::{SqliteStore, Store as _};
use axum_idem::{Attempt, CommitError, idempotent};
use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection, SqliteSynchronous};
use sqlx::{Acquire as _, AssertSqlSafe};

use crate::bank::{self, Bank, Paid, Service, options};
use crate::support;

/// Pays in the file that the body names, and runs the statement behind the name first.
#[idempotent(scope = token, transactional)]
async fn elsewhere(State(bank): State<Bank>, attempt: Attempt, body: String) -> Paid {
    let (path, statement) = body.split_once('\n').unwrap_or((&body, ""));
    let path = PathBuf::from(path);
    if statement == "copy" {
        // The copy has the claim of this attempt.
        let copy = sqlx::query("VACUUM INTO ?1").bind(path.to_str().map(str::to_owned));
        copy.execute(&bank.pool).await?;
    }
    if statement == "link" {
        let checkpoint = sqlx::query("PRAGMA wal_checkpoint(TRUNCATE)");
        checkpoint.execute(&bank.pool).await?;
        let original = bank.pool.connect_options();
        std::fs::hard_link(original.get_filename(), &path).expect("linked");
    }
    let options = options(&path);
    let options = if statement == "normal" {
        options.synchronous(SqliteSynchronous::Normal)
    } else {
        options
    };
    pay_in(&bank, &attempt, options, statement).await
}

async fn pay_in(
    bank: &Bank,
    attempt: &Attempt,
    options: SqliteConnectOptions,
    statement: &str,
) -> Paid {
    let pool = bank::pool(options).await;
    if statement.starts_with("ATTACH") {
        let statement = AssertSqlSafe(statement.to_owned());
        sqlx::query(statement).execute(&pool).await?;
    }
    let mut tx = pool.begin_with("BEGIN IMMEDIATE").await?;
    let table = sqlx::query("CREATE TABLE IF NOT EXISTS payments (run TEXT NOT NULL)");
    table.execute(&mut *tx).await?;
    Bank::pay(&mut tx, "elsewhere").await?;
    let response = attempt.commit(tx, (StatusCode::CREATED, "paid")).await;
    let response = bank.note(response);
    let paid =
        sqlx::query_scalar("SELECT count(*) FROM main.sqlite_schema WHERE name = 'payments'");
    let paid: i64 = paid.fetch_one(&pool).await?;
    pool.close().await;
    assert!(response.is_err() || paid == 1, "committed");
    Ok(response?)
}

/// Records without a transaction, or in one that sqlx does not know.
#[idempotent(scope = token, transactional)]
async fn by_hand(State(bank): State<Bank>, attempt: Attempt, body: String) -> Paid {
    let mut connection = bank.pool.acquire().await?;
    if body == "begun" {
        sqlx::query("BEGIN IMMEDIATE")
            .execute(&mut *connection)
            .await?;
    }
    let response = attempt.record_in(&mut *connection, (StatusCode::CREATED, body));
    let response = bank.note(response.await)?;
    Bank::pay(&mut connection, "by hand").await?;
    sqlx::query("COMMIT").execute(&mut *connection).await?;
    Ok(response)
}

/// Fills the file, so that SQLite rolls back, and ignores the error.
#[idempotent(scope = token, transactional)]
async fn full(State(bank): State<Bank>, attempt: Attempt, body: String) -> Paid {
    let mut tx = bank.begin().await?;
    fill(&mut tx).await?;
    let response = if body == "recorded" {
        let recorded = attempt.record_in(&mut *tx, (StatusCode::CREATED, body));
        bank.note(recorded.await)
    } else {
        bank.note(attempt.commit(tx, (StatusCode::CREATED, body)).await)
    };
    Ok(response?)
}

/// As `full`, in a savepoint.
#[idempotent(scope = token, transactional)]
async fn full_savepoint(State(bank): State<Bank>, attempt: Attempt, body: String) -> Paid {
    let mut tx = bank.begin().await?;
    let mut first = tx.begin().await?;
    let mut second = first.begin().await?;
    fill(&mut second).await?;
    let recorded = attempt.record_in(&mut *second, (StatusCode::CREATED, body));
    let recorded = bank.note(recorded.await);
    second.rollback().await?;
    first.rollback().await?;
    tx.rollback().await?;
    Ok(recorded?)
}

/// Fills the file, so that SQLite rolls back, and makes room again.
async fn fill(connection: &mut SqliteConnection) -> sqlx::Result<()> {
    Bank::pay(connection, "undone").await?;
    sqlx::query("PRAGMA max_page_count = 1")
        .execute(&mut *connection)
        .await?;
    let long = Bank::pay(connection, &"x".repeat(1 << 20)).await;
    assert!(long.is_err(), "the file is full");
    sqlx::query("PRAGMA max_page_count = 1000000")
        .execute(connection)
        .await?;
    Ok(())
}

/// Writes after another connection has written since its first read.
#[idempotent(scope = token, transactional)]
async fn stale(
    State(bank): State<Bank>,
    attempt: Attempt,
    body: String,
) -> Result<Response, CommitError> {
    let other = bank::pool((*bank.pool.connect_options()).clone()).await;
    let mut tx = bank.pool.begin().await?;
    let read = sqlx::query("SELECT count(*) FROM payments");
    read.fetch_one(&mut *tx).await?;
    if bank.runs.count() == 1 {
        let mut other = other.acquire().await?;
        Bank::pay(&mut other, "by another connection").await?;
    }
    attempt.commit(tx, (StatusCode::CREATED, body)).await
}

async fn start() -> Service {
    let routes = Router::new()
        .route("/elsewhere", post(elsewhere))
        .route("/by_hand", post(by_hand))
        .route("/full", post(full))
        .route("/full_savepoint", post(full_savepoint))
        .route("/stale", post(stale));
    Service::start(routes).await
}

impl Service {
    /// The only connection of the pool can begin a transaction.
    async fn can_begin(&self) {
        let tx = self.bank.begin().await.expect("begun");
        tx.commit().await.expect("committed");
    }

    /// The code of the refusal, and that nothing was committed.
    async fn refused(&self, key: &str, path: &Path, statement: &str) -> String {
        let body = format!("{}\n{statement}", path.display());
        let response = self.server.post("/elsewhere", key, &body).await;
        assert!(
            self.bank.payments().await.is_empty(),
            "{body}: {response:?}"
        );
        assert!(self.entry(key).await.is_none(), "{body}: the key is free");
        let mut results = self.bank.take_results();
        assert_eq!(results.len(), 1, "{response:?}");
        results.remove(0)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_transaction_in_another_file_is_refused() {
    let service = start().await;
    let file = |name: &str| service.folder.path().join(name);
    let result = service.refused("empty", &file("other.db"), "").await;
    assert_eq!(result, "OtherDatabase");

    let of_a_store = file("store.db");
    let other = SqliteStore::open(&of_a_store).await.expect("it opens");
    let result = service.refused("store", &of_a_store, "").await;
    assert_eq!(result, "OtherDatabase");
    assert!(
        other
            .list(axum_idem::store::Query::all())
            .await
            .expect("a page")
            .entries
            .is_empty()
    );

    let result = service.refused("copy", &file("copy.db"), "copy").await;
    assert_eq!(result, "OtherDatabase");
    let result = service.refused("link", &file("link.db"), "link").await;
    assert_eq!(result, "OtherDatabase");
}

/// A symbolic link is the same file.
#[tokio::test(flavor = "multi_thread")]
async fn a_transaction_in_the_same_file_by_another_path_is_committed() {
    let service = start().await;
    let link = service.folder.path().join("link.db");
    std::os::unix::fs::symlink(&service.path, &link).expect("linked");
    let here = std::env::current_dir().expect("a folder");
    let up: PathBuf = here.components().skip(1).map(|_| "..").collect();
    let relative = up.join(service.path.strip_prefix("/").expect("absolute"));
    for (key, path) in [("link", link), ("relative", relative)] {
        let body = path.display().to_string();
        let first = service.server.post("/elsewhere", key, &body).await;
        assert_eq!(first.status, StatusCode::CREATED, "{first:?}");
        let again = service.server.post("/elsewhere", key, &body).await;
        assert!(again.is_replay(), "{again:?}");
    }
    assert_eq!(service.bank.payments().await, ["elsewhere"; 2]);
}

/// SQLite commits each attached file by itself.
#[tokio::test(flavor = "multi_thread")]
async fn a_connection_with_attached_files_is_refused() {
    let service = start().await;
    let other = service.folder.path().join("other.db");
    let attach = format!("ATTACH '{}' AS other", other.display());
    let result = service.refused("to-this", &service.path, &attach).await;
    assert_eq!(result, "OtherDatabase");
    let attach = format!("ATTACH '{}' AS store", service.path.display());
    let result = service.refused("this-to-another", &other, &attach).await;
    assert_eq!(result, "OtherDatabase");

    let body = format!("{}\nATTACH ':memory:' AS scratch", service.path.display());
    let first = service.server.post("/elsewhere", "k", &body).await;
    assert_eq!(first.status, StatusCode::CREATED, "{first:?}");
    assert_eq!(service.bank.payments().await, ["elsewhere"]);
}

/// The response would be acknowledged before it is on the disk.
#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_syncs_less_than_the_store_is_refused() {
    let service = start().await;
    let result = service.refused("k", &service.path, "normal").await;
    assert_eq!(result, "Database");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_record_outside_of_a_transaction_is_refused() {
    let service = start().await;
    let response = service.server.post("/by_hand", "k", "not begun").await;
    assert_eq!(response.code(), "idempotency_not_transactional");
    assert!(service.entry("k").await.is_none(), "the key is free");
    let begun = service.server.post("/by_hand", "k", "begun").await;
    assert_eq!(begun.status, StatusCode::CREATED, "{begun:?}");
    assert_eq!(service.bank.payments().await, ["by hand"]);
    assert_eq!(service.bank.take_results(), ["NoTransaction", "Ok"]);
}

/// SQLite has rolled back, and sqlx does not know. The record would be committed alone.
#[tokio::test(flavor = "multi_thread")]
async fn a_record_after_sqlite_has_rolled_back_is_refused() {
    let service = start().await;
    for body in ["recorded", "committed"] {
        let response = service.server.post("/full", body, body).await;
        assert_eq!(response.code(), "idempotency_not_transactional");
        assert_eq!(service.bank.take_results(), ["NoTransaction"], "{body}");
        assert!(service.entry(body).await.is_none(), "the key is free");
        assert!(service.bank.payments().await.is_empty());
    }
    service.can_begin().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_savepoint_that_sqlite_has_rolled_back_leaves_a_usable_connection() {
    let service = start().await;
    let response = service.server.post("/full_savepoint", "k", "x").await;
    assert_eq!(response.code(), "idempotency_not_transactional");
    assert_eq!(service.bank.take_results(), ["NoTransaction"]);
    service.can_begin().await;
}

/// Its `COMMIT` fails, because SQLite has rolled back before.
#[tokio::test(flavor = "multi_thread")]
async fn a_failed_commit_without_a_key_leaves_a_usable_connection() {
    let service = start().await;
    let unkeyed = support::request(Method::POST, "/full", [], "committed");
    let response = service.server.send(unkeyed).await;
    assert!(response.status.is_server_error(), "{response:?}");
    assert!(service.bank.payments().await.is_empty());
    service.can_begin().await;
}

/// An operator finds the record by the problem that the client got.
#[tokio::test(flavor = "multi_thread")]
async fn the_problem_of_a_failed_commit_names_its_record() {
    let service = start().await;
    let keyed = service.server.post("/by_hand", "k", "not begun").await;
    let urn = service.id("k").urn();
    assert!(keyed.text().contains(&urn), "{keyed:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_may_retry_after_a_snapshot_that_cannot_write() {
    let service = start().await;
    let first = service.server.post("/stale", "k", "x").await;
    assert_eq!(first.code(), "idempotency_commit_failed", "{first:?}");
    assert_eq!(first.status, StatusCode::SERVICE_UNAVAILABLE);
    assert!(first.headers.contains_key(RETRY_AFTER), "{first:?}");
    let second = service.server.post("/stale", "k", "x").await;
    assert_eq!(second.status, StatusCode::CREATED, "{second:?}");
}

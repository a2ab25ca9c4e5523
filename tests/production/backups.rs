//! What a backup of the store brings back when it is restored.

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use axum::routing::post;
use axum_idem::store::{PostgresStore, Query, RedisStore, SqliteStore, StateKind, Store};
use axum_idem::{Attempt, CommitError, Idempotency, Scope, idempotent};
use sqlx::postgres::PgPool;
use test_support::http::{Answer, Runs, Server, eventually};
use test_support::servers::postgres::PostgresServer;
use test_support::servers::redis::RedisServer;

const LEASE: Duration = Duration::from_secs(2);
const PATIENCE: Duration = Duration::from_secs(20);

/// The body `wait` holds the run at the gate.
#[idempotent(scope = token, on_unknown = hold)]
async fn pay(State(runs): State<Runs>, body: String) -> (StatusCode, String) {
    let run = match body.as_str() {
        "wait" => runs.pass().await,
        _ => runs.count(),
    };
    (StatusCode::CREATED, format!("run {run}"))
}

/// A service that runs from its start until the store is restored, or from then on.
struct Service {
    idem: Idempotency,
    runs: Runs,
    server: Server,
}

impl Service {
    async fn on(store: Arc<dyn Store>) -> Self {
        let idem = Idempotency::builder().store(store).lease(LEASE).build();
        let runs = Runs::default();
        let router = Router::new()
            .route("/pay", post(pay))
            .layer(idem.clone())
            .with_state(runs.clone());
        Self {
            server: Server::start(router).await,
            idem,
            runs,
        }
    }

    async fn pay(&self, key: &str, body: &str) -> Answer {
        self.server.post("/pay", key, body).await
    }

    /// The state of the store when the backup is made: two records, and one request that still runs.
    async fn before_the_backup(&self) {
        assert_eq!(self.pay("kept", "").await.status, StatusCode::CREATED);
        assert_eq!(self.pay("erased", "").await.status, StatusCode::CREATED);
        let server = self.server;
        tokio::spawn(async move { server.post("/pay", "running", "wait").await });
        self.runs.until_started(3).await;
    }

    /// What happens after the backup, and is not in it.
    async fn after_the_backup(&self) {
        self.runs.open(1);
        eventually("the run ends", || self.idem.running() == 0).await;
        assert!(self.pay("running", "wait").await.is_replay());
        assert_eq!(self.pay("late", "").await.status, StatusCode::CREATED);
        let erased = self
            .idem
            .record_id(&Scope::new().token("Bearer alice"), "erased");
        assert!(self.idem.forget(erased).await.expect("the store is there"));
    }

    /// What the backup brings back.
    async fn after_the_restore(&self) {
        for key in ["kept", "erased"] {
            let retry = self.pay(key, "").await;
            assert!(retry.is_replay(), "{key}: {retry:?}");
        }
        // The key of the run is in flight in the backup. Its lease has lapsed, or lapses now.
        let held = loop {
            let retry = self.pay("running", "wait").await.code();
            if retry != "idempotency_key_in_flight" {
                break retry;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        };
        assert_eq!(held, "idempotency_outcome_unknown");
        let unknown = Query::all().state(StateKind::Unknown);
        let unknown = self.idem.list(unknown).await.expect("the store is there");
        assert_eq!(unknown.entries.len(), 1, "an operator finds the key");
        assert_eq!(self.runs.started(), 0, "nothing has run again");

        let late = self.pay("late", "").await;
        assert_eq!((late.text(), late.is_replay()), ("run 1", false));
    }
}

#[tokio::test]
async fn a_backup_of_redis_brings_back_what_it_contains() {
    let mut server = RedisServer::start();
    let connect = async |server: &RedisServer| {
        let builder = RedisStore::builder().url(server.url()).timeout(PATIENCE);
        Arc::new(builder.connect().await.expect("redis is there"))
    };
    let service = Service::on(connect(&server).await).await;
    service.before_the_backup().await;
    let backup = server.dump();
    service.after_the_backup().await;
    server.restore(&backup);
    let service = Service::on(connect(&server).await).await;
    service.after_the_restore().await;
}

#[tokio::test]
async fn a_backup_of_postgres_brings_back_what_it_contains() {
    let server = PostgresServer::start();
    let connect = async || {
        let builder = PostgresStore::builder().url(server.url()).timeout(PATIENCE);
        Arc::new(builder.connect().await.expect("postgres is there"))
    };
    let service = Service::on(connect().await).await;
    service.before_the_backup().await;
    let backup = server.dump();
    service.after_the_backup().await;
    server.restore(&backup);
    let service = Service::on(connect().await).await;
    service.after_the_restore().await;
}

#[tokio::test]
async fn a_backup_of_sqlite_brings_back_what_it_contains() {
    let folder = tempfile::tempdir().expect("a folder");
    let (path, backup) = (folder.path().join("idem.db"), folder.path().join("backup"));
    let open = async || {
        let builder = SqliteStore::builder().path(&path).busy_timeout(PATIENCE);
        Arc::new(builder.open().await.expect("the file opens"))
    };
    let service = Service::on(open().await).await;
    service.before_the_backup().await;
    back_up(&path, &backup).await;
    service.after_the_backup().await;
    // Another machine, to which only the backup was copied.
    let path = folder.path().join("restored.db");
    fs::copy(&backup, &path).expect("the folder is writable");
    let builder = SqliteStore::builder().path(&path).busy_timeout(PATIENCE);
    let store = builder.open().await.expect("the file opens");
    let service = Service::on(Arc::new(store)).await;
    service.after_the_restore().await;
}

async fn back_up(path: &Path, backup: &Path) {
    let url = format!("sqlite://{}", path.display());
    let pool = axum_idem::sqlx::SqlitePool::connect(&url).await;
    let pool = pool.expect("the file opens");
    let backup = backup.to_str().expect("UTF-8");
    let saved = sqlx::query("VACUUM INTO ?").bind(backup).execute(&pool);
    saved.await.expect("the backup is written");
    pool.close().await;
}

#[idempotent(scope = token, transactional)]
async fn pay_in_database(
    State(pool): State<PgPool>,
    attempt: Attempt,
) -> Result<Response, CommitError> {
    let mut tx = pool.begin().await?;
    sqlx::query("INSERT INTO payments DEFAULT VALUES")
        .execute(&mut *tx)
        .await?;
    attempt.commit(tx, StatusCode::CREATED).await
}

/// The effect is lost with the record, so the retry makes the effect again, and once.
#[tokio::test]
async fn effects_that_commit_with_their_records_are_restored_together() {
    let postgres = PostgresServer::start();
    postgres.command("CREATE TABLE payments (id serial PRIMARY KEY)");
    let serve = async || {
        let store = PostgresStore::builder().url(postgres.url());
        let store = store.timeout(PATIENCE).connect().await;
        let idem = Idempotency::builder()
            .store(store.expect("postgres is there"))
            .build();
        let pool = PgPool::connect(&postgres.url()).await;
        let router = Router::new()
            .route("/pay", post(pay_in_database))
            .layer(idem)
            .with_state(pool.expect("postgres is there"));
        Server::start(router).await
    };
    let payments = || postgres.command("SELECT count(*) FROM payments");
    let server = serve().await;
    assert_eq!(server.post("/pay", "early", "").await.status, 201);
    let backup = postgres.dump();
    assert_eq!(server.post("/pay", "late", "").await.status, 201);
    assert_eq!(payments(), "2");
    postgres.restore(&backup);
    assert_eq!(payments(), "1");
    let server = serve().await;
    assert!(server.post("/pay", "early", "").await.is_replay());
    let late = server.post("/pay", "late", "").await;
    assert!(late.status == 201 && !late.is_replay(), "{late:?}");
    assert_eq!(payments(), "2");
}

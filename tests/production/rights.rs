//! The rights of a role that commits responses in its own transactions.

use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use axum::routing::post;
use axum_idem::store::PostgresStore;
use axum_idem::{Attempt, CommitError, Idempotency, idempotent};
use sqlx::PgPool;
use test_support::http::Server;
use test_support::servers::postgres::PostgresServer;

#[idempotent(scope = token, transactional)]
async fn pay(State(pool): State<PgPool>, attempt: Attempt) -> Result<Response, CommitError> {
    let mut tx = pool.begin().await?;
    let insert = "INSERT INTO payments DEFAULT VALUES";
    sqlx::query(insert).execute(&mut *tx).await?;
    attempt.commit(tx, StatusCode::CREATED).await
}

/// The statements of the document.
fn grants() -> &'static str {
    let document = include_str!("../../docs/production.md");
    let (_, block) = document
        .split_once("```sql\nCREATE ROLE handlers")
        .expect("a block");
    let (block, _) = block.split_once("```").expect("the end of the block");
    block
}

#[tokio::test]
async fn the_documented_grants_are_enough_to_commit() {
    let postgres = PostgresServer::start();
    let store = PostgresStore::builder().url(postgres.url()).no_sweeper();
    let store = store.connect().await.expect("postgres is there");
    postgres.command("CREATE TABLE payments (id serial PRIMARY KEY)");
    postgres.command("REVOKE ALL ON SCHEMA public FROM PUBLIC");
    postgres.command(&format!("CREATE ROLE handlers{}", grants()));
    postgres.command("GRANT INSERT ON payments TO handlers");
    postgres.command("GRANT USAGE ON payments_id_seq TO handlers");
    let url = postgres.url().replace("user=desk", "user=handlers");
    let pool = PgPool::connect(&url).await.expect("the role may connect");
    let router = Router::new()
        .route("/", post(pay))
        .layer(Idempotency::builder().store(store).build())
        .with_state(pool);
    let server = Server::start(router).await;
    assert_eq!(server.post("/", "k", "").await.status, StatusCode::CREATED);
    assert!(server.post("/", "k", "").await.is_replay());

    for right in ["SELECT", "INSERT", "UPDATE"] {
        let table = format!("{right} ON public.idem_records");
        postgres.command(&format!("REVOKE {table} FROM handlers"));
        let refused = server.post("/", right, "").await.status;
        assert_eq!(
            refused,
            StatusCode::INTERNAL_SERVER_ERROR,
            "without {right}"
        );
        postgres.command(&format!("GRANT {table} TO handlers"));
    }
    assert_eq!(postgres.command("SELECT count(*) FROM payments"), "1");
}

//! `Attempt::prepare` with tokio-postgres and a pool of deadpool.

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use axum::routing::post;
use axum_idem::{Attempt, idempotent};
use deadpool_postgres::{Manager, Pool};
use drivers::{Failure, Service};
use tokio_postgres::error::SqlState;
use tokio_postgres::types::ToSql;
use tokio_postgres::{Client, IsolationLevel, NoTls};

#[idempotent(scope = token, transactional)]
async fn pay(
    State(service): State<Service<Pool>>,
    attempt: Attempt,
    order: String,
) -> Result<Response, Failure> {
    let mut client = service.pool.get().await?;
    loop {
        match run(&mut client, &service, &attempt, &order).await {
            Err(Stop::Database(error)) if is_serialization_failure(&error) => {}
            Err(Stop::Database(error)) => return Err(error.into()),
            Err(Stop::Failed(failure)) => return Err(failure),
            Ok(response) => return Ok(response),
        }
    }
}

enum Stop {
    Database(tokio_postgres::Error),
    Failed(Failure),
}

impl From<tokio_postgres::Error> for Stop {
    fn from(error: tokio_postgres::Error) -> Self {
        Self::Database(error)
    }
}

impl From<Failure> for Stop {
    fn from(failure: Failure) -> Self {
        Self::Failed(failure)
    }
}

fn is_serialization_failure(error: &tokio_postgres::Error) -> bool {
    error.code() == Some(&SqlState::T_R_SERIALIZATION_FAILURE)
}

async fn run(
    client: &mut Client,
    service: &Service<Pool>,
    attempt: &Attempt,
    order: &str,
) -> Result<Response, Stop> {
    let transaction = client.build_transaction();
    let transaction = transaction.isolation_level(IsolationLevel::Serializable);
    let transaction = transaction.start().await?;
    let count = "SELECT count(*) FROM payments";
    let earlier: i64 = transaction.query_one(count, &[]).await?.get(0);
    service.compete(order).await?;
    let insert = "INSERT INTO payments (run) VALUES ($1)";
    transaction.execute(insert, &[&order]).await?;

    // The last statement of the transaction.
    let response = (
        StatusCode::CREATED,
        format!("{order}, after {earlier} payments"),
    );
    let prepared = attempt.prepare(response).await.map_err(Failure::from)?;
    let binds = prepared.binds().iter();
    let binds = binds.map(|bind| -> Box<dyn ToSql + Sync + Send> {
        match bind.as_bytes() {
            Some(bytes) => Box::new(bytes.to_vec()),
            None => Box::new(bind.as_integer()),
        }
    });
    transaction.execute_raw(prepared.sql(), binds).await?;
    if service.rolls_back(order) {
        transaction.rollback().await?;
        return Err(Failure::from("rolled back").into());
    }
    transaction.commit().await?;
    Ok(prepared.into_response())
}

async fn connect(url: &str) -> Result<Pool, Failure> {
    let manager = Manager::new(url.parse()?, NoTls);
    Ok(Pool::builder(manager).build()?)
}

#[tokio::main]
async fn main() -> Result<(), Failure> {
    drivers::check("tokio-postgres", connect, post(pay)).await
}

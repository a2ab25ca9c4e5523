//! `Attempt::prepare` with diesel-async and a pool of deadpool.

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use axum::routing::post;
use axum_idem::{Attempt, Prepared, idempotent};
use diesel::ExpressionMethods as _;
use diesel::QueryDsl as _;
use diesel::pg::Pg;
use diesel::result::{DatabaseErrorKind, Error};
use diesel::sql_types::{BigInt, Binary};
use diesel_async::pooled_connection::AsyncDieselConnectionManager;
use diesel_async::pooled_connection::deadpool::Pool;
use diesel_async::{AsyncPgConnection, RunQueryDsl as _};
use drivers::{Failure, Service};

type PgPool = Pool<AsyncPgConnection>;

diesel::table! {
    payments (id) {
        id -> BigInt,
        run -> Text,
    }
}

#[idempotent(scope = token, transactional)]
async fn pay(
    State(service): State<Service<PgPool>>,
    attempt: Attempt,
    order: String,
) -> Result<Response, Failure> {
    let mut connection = service.pool.get().await?;
    loop {
        let (service, attempt, order) = (&service, &attempt, order.as_str());
        let done = connection
            .build_transaction()
            .serializable()
            .run(async |connection| run(connection, service, attempt, order).await)
            .await;
        match done {
            Err(Stop::Database(error)) if is_serialization_failure(&error) => {}
            Err(Stop::Database(error)) => return Err(error.into()),
            Err(Stop::Failed(failure)) => return Err(failure),
            Ok(prepared) => return Ok(prepared.into_response()),
        }
    }
}

enum Stop {
    Database(Error),
    Failed(Failure),
}

impl From<Error> for Stop {
    fn from(error: Error) -> Self {
        Self::Database(error)
    }
}

impl From<Failure> for Stop {
    fn from(failure: Failure) -> Self {
        Self::Failed(failure)
    }
}

fn is_serialization_failure(error: &Error) -> bool {
    matches!(
        error,
        Error::DatabaseError(DatabaseErrorKind::SerializationFailure, _)
    )
}

/// An error rolls the transaction back.
async fn run(
    connection: &mut AsyncPgConnection,
    service: &Service<PgPool>,
    attempt: &Attempt,
    order: &str,
) -> Result<Prepared, Stop> {
    let earlier: i64 = payments::table.count().get_result(connection).await?;
    service.compete(order).await?;
    diesel::insert_into(payments::table)
        .values(payments::run.eq(order))
        .execute(connection)
        .await?;

    // The last statement of the transaction.
    let response = (
        StatusCode::CREATED,
        format!("{order}, after {earlier} payments"),
    );
    let prepared = attempt.prepare(response).await.map_err(Failure::from)?;
    let mut statement = diesel::sql_query(prepared.sql()).into_boxed::<Pg>();
    for bind in prepared.binds() {
        statement = match bind.as_bytes() {
            Some(bytes) => statement.bind::<Binary, _>(bytes),
            None => statement.bind::<BigInt, _>(bind.as_integer().unwrap_or_default()),
        };
    }
    statement.execute(connection).await?;
    if service.rolls_back(order) {
        return Err(Failure::from("rolled back").into());
    }
    Ok(prepared)
}

async fn connect(url: &str) -> Result<PgPool, Failure> {
    let manager = AsyncDieselConnectionManager::<AsyncPgConnection>::new(url);
    Ok(Pool::builder(manager).build()?)
}

#[tokio::main]
async fn main() -> Result<(), Failure> {
    drivers::check("diesel-async", connect, post(pay)).await
}

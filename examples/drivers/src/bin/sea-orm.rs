//! `Attempt::prepare` with sea-orm.

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use axum::routing::post;
use axum_idem::{Attempt, idempotent};
use drivers::{Failure, Service};
use sea_orm::{
    ActiveModelTrait as _, ActiveValue, ConnectionTrait as _, Database, DatabaseConnection,
    DbBackend, DbErr, EntityTrait as _, IsolationLevel, PaginatorTrait as _, RuntimeErr, Statement,
    TransactionTrait as _, Value,
};

mod payment {
    use sea_orm::entity::prelude::*;

    #[derive(Clone, Debug, DeriveEntityModel)]
    #[sea_orm(table_name = "payments")]
    pub struct Model {
        #[sea_orm(primary_key)]
        pub id: i64,
        pub run: String,
    }

    #[derive(Copy, Clone, Debug, DeriveRelation, EnumIter)]
    pub enum Relation {}

    impl ActiveModelBehavior for ActiveModel {}
}

#[idempotent(scope = token, transactional)]
async fn pay(
    State(service): State<Service<DatabaseConnection>>,
    attempt: Attempt,
    order: String,
) -> Result<Response, Failure> {
    loop {
        match run(&service, &attempt, &order).await {
            Err(Stop::Database(error)) if is_serialization_failure(&error) => {}
            Err(Stop::Database(error)) => return Err(error.into()),
            Err(Stop::Failed(failure)) => return Err(failure),
            Ok(response) => return Ok(response),
        }
    }
}

enum Stop {
    Database(DbErr),
    Failed(Failure),
}

impl From<DbErr> for Stop {
    fn from(error: DbErr) -> Self {
        Self::Database(error)
    }
}

impl From<Failure> for Stop {
    fn from(failure: Failure) -> Self {
        Self::Failed(failure)
    }
}

fn is_serialization_failure(error: &DbErr) -> bool {
    let (DbErr::Conn(RuntimeErr::SqlxError(error))
    | DbErr::Exec(RuntimeErr::SqlxError(error))
    | DbErr::Query(RuntimeErr::SqlxError(error))) = error
    else {
        return false;
    };
    let error = error.as_database_error();
    error.is_some_and(|error| error.code().as_deref() == Some("40001"))
}

async fn run(
    service: &Service<DatabaseConnection>,
    attempt: &Attempt,
    order: &str,
) -> Result<Response, Stop> {
    let level = Some(IsolationLevel::Serializable);
    let transaction = service.pool.begin_with_config(level, None).await?;
    let earlier = payment::Entity::find().count(&transaction).await?;
    service.compete(order).await?;
    let payment = payment::ActiveModel {
        id: ActiveValue::NotSet,
        run: ActiveValue::Set(order.to_owned()),
    };
    payment.insert(&transaction).await?;

    // The last statement of the transaction.
    let response = (
        StatusCode::CREATED,
        format!("{order}, after {earlier} payments"),
    );
    let prepared = attempt.prepare(response).await.map_err(Failure::from)?;
    let binds = prepared.binds().iter().map(|bind| match bind.as_bytes() {
        Some(bytes) => Value::from(bytes.to_vec()),
        None => Value::from(bind.as_integer()),
    });
    let statement = Statement::from_sql_and_values(DbBackend::Postgres, prepared.sql(), binds);
    transaction.execute_raw(statement).await?;
    if service.rolls_back(order) {
        transaction.rollback().await?;
        return Err(Failure::from("rolled back").into());
    }
    transaction.commit().await?;
    Ok(prepared.into_response())
}

async fn connect(url: &str) -> Result<DatabaseConnection, Failure> {
    Ok(Database::connect(url).await?)
}

#[tokio::main]
async fn main() -> Result<(), Failure> {
    drivers::check("sea-orm", connect, post(pay)).await
}

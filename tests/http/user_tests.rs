//! Tests how a service tests its own handlers: without a router, and by their declared return types.

use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum_idem::testing::returned_by;
use axum_idem::{Attempt, IdempotencyKey, RecordId, idempotent};

use crate::support::Runs;

#[derive(Debug, PartialEq)]
struct SoldOut;

impl axum::response::IntoResponse for SoldOut {
    fn into_response(self) -> axum::response::Response {
        StatusCode::CONFLICT.into_response()
    }
}

#[idempotent(scope = global)]
async fn place(
    State(runs): State<Runs>,
    attempt: Attempt,
    key: Option<IdempotencyKey>,
    Json(quantity): Json<u32>,
) -> Result<(StatusCode, Json<String>), SoldOut> {
    runs.count();
    if quantity > 9 {
        return Err(SoldOut);
    }
    let key = key.map_or_else(String::new, String::from);
    let placed = format!("{quantity} {key} {}", attempt.derive_key("place"));
    Ok((StatusCode::CREATED, Json(placed)))
}

#[tokio::test]
async fn a_test_sees_the_declared_return_value_of_a_handler() {
    let (runs, record) = (Runs::default(), RecordId::from_bytes([7; 32]));
    let mut bodies = Vec::new();
    for number in [1, 2] {
        let placed: Result<(StatusCode, Json<String>), SoldOut> =
            returned_by(Json(3), |quantity| {
                let key = Some(IdempotencyKey::new("order-7"));
                let attempt = Attempt::new(record, number);
                place(State(runs.clone()), attempt, key, quantity)
            })
            .await;
        let (status, Json(body)) = placed.expect("not sold out");
        assert_eq!(status, StatusCode::CREATED);
        bodies.push(body);
    }
    assert!(bodies[0].starts_with("3 order-7 "), "{bodies:?}");
    assert_eq!(bodies[0], bodies[1], "attempts derive the same keys");

    let refused: Result<(StatusCode, Json<String>), SoldOut> = returned_by(Json(10), |quantity| {
        place(State(runs.clone()), Attempt::default(), None, quantity)
    })
    .await;
    assert_eq!(refused.expect_err("sold out"), SoldOut);
    assert_eq!(runs.started(), 3);
}

#[idempotent(scope = global)]
async fn nothing() {}

#[idempotent(scope = id)]
async fn cancel(Path(id): Path<u64>) -> Json<u64> {
    Json(id)
}

#[idempotent(scope = global, required)]
async fn required(body: String) -> String {
    body
}

#[idempotent(scope = global, key = header("x-id"))]
async fn delivered(key: IdempotencyKey) -> String {
    key.to_string()
}

#[idempotent(scope = global, key = header("x-id"))]
async fn delivered_at(at: Option<IdempotencyKey>, key: Option<IdempotencyKey>) -> String {
    format!("{at:?} {key:?}")
}

/// The key of the endpoint has a wrapper of its own, inside the wrapper of the last argument.
#[tokio::test]
async fn the_key_of_an_endpoint_can_be_passed_as_the_last_argument() {
    let key = || IdempotencyKey::new("delivery-7");
    assert_eq!(delivered(key().into()).await.status(), StatusCode::OK);
    let other = delivered_at(None.into(), Some(key()).into()).await;
    assert_eq!(other.status(), StatusCode::OK);
    let body: String = returned_by(key(), delivered).await;
    assert_eq!(body, "delivery-7");
    let body: String = returned_by(Some(key()), |last| delivered_at(None.into(), last)).await;
    assert!(body.starts_with("None Some("), "{body}");
}

#[tokio::test]
async fn every_form_of_the_last_argument_can_be_passed() {
    returned_by::<(), _, _, _>((), nothing).await;
    let Json(id): Json<u64> = returned_by(Path(7), cancel).await;
    assert_eq!(id, 7);
    let body: String = returned_by("hello".to_owned(), required).await;
    assert_eq!(body, "hello");
}

#[tokio::test]
#[should_panic(expected = "the handler returns `axum::json::Json<u64>`, not `u64`")]
async fn another_return_type_is_reported() {
    let _: u64 = returned_by(Path(7), cancel).await;
}

#[tokio::test]
#[should_panic(expected = "the closure does not call an annotated handler with its argument")]
async fn a_closure_that_calls_no_handler_is_reported() {
    let _: String = returned_by(
        "hello".to_owned(),
        |body: axum_idem::Deferred<String>| async {
            drop(body);
            axum::response::Response::default()
        },
    )
    .await;
}

/// A service that imports sqlx from the facade cannot have a pool of another version.
#[cfg(all(feature = "postgres", feature = "sqlite"))]
#[tokio::test]
async fn the_stores_take_pools_of_the_reexported_sqlx() {
    use axum_idem::sqlx::{PgPool, sqlite::SqliteSynchronous};
    use axum_idem::store::{PostgresStore, SqliteStore};

    let pool = PgPool::connect_lazy("postgres://127.0.0.1/none").expect("an address");
    drop(PostgresStore::from_pool(pool));
    let _ = SqliteStore::builder().synchronous(SqliteSynchronous::Full);
}

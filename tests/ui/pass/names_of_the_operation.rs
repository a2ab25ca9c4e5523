//! Names and types that are similar to those of the key and of the attempt.
#![deny(warnings)]
use axum::extract::{FromRequestParts, Path};
use axum::http::request::Parts;
use axum::{Router, routing::post};
use axum_idem::{IdempotencyKey, idempotent};

mod exams {
    /// An attempt of a student, which has nothing to do with the attempt of a request.
    pub struct Attempt {
        pub student: u64,
    }
}

impl<S: Sync> FromRequestParts<S> for exams::Attempt {
    type Rejection = std::convert::Infallible;

    async fn from_request_parts(_: &mut Parts, _: &S) -> Result<Self, Self::Rejection> {
        Ok(Self { student: 1 })
    }
}

#[idempotent(scope = key)]
async fn place_trade(Path(key): Path<u64>, order: String) -> String {
    format!("{order} {key}")
}

#[idempotent(scope = attempt.student)]
async fn hand_in(attempt: exams::Attempt, order: String) -> String {
    format!("{order} {}", attempt.student)
}

#[idempotent(scope = (token, attempt))]
async fn hand_in_again((key, Path(attempt)): (IdempotencyKey, Path<u64>), order: String) -> String {
    format!("{order} {key} {attempt}")
}

/// The other part is the same for every caller only as far as the attribute can see.
#[idempotent(scope = (global, tenant()), unknown = [202], record = [2xx])]
async fn cancel_trade(order: String) -> String {
    order
}

fn tenant() -> &'static str {
    "eu"
}

#[idempotent(scope = token, record = [201], unknown = [2xx])]
async fn settle_trade(order: String) -> String {
    order
}

pub fn main() {
    let _: Router = Router::new()
        .route("/{key}", post(place_trade).put(hand_in_again))
        .route("/", post(hand_in).put(cancel_trade).delete(settle_trade));
}

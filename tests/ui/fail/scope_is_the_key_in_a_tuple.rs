use axum::http::Method;
use axum_idem::{IdempotencyKey, idempotent};

#[idempotent(scope = format!("{method}-{key:?}"))]
async fn receive((method, key): (Method, Option<IdempotencyKey>), event: String) -> String {
    format!("{method} {event} {key:?}")
}

fn main() {}

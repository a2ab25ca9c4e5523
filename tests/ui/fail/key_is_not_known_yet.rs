use axum_idem::{IdempotencyKey, idempotent};

#[idempotent(scope = key.as_str(), key = header("x-id"))]
async fn receive(key: IdempotencyKey, event: String) -> String {
    event
}

fn main() {}

use axum_idem::{IdempotencyKey, idempotent};

#[idempotent(scope = key)]
async fn receive(key: IdempotencyKey, event: String) -> String {
    event + key.as_str()
}

fn main() {}

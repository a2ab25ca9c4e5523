use axum_idem::{Attempt, idempotent};

#[idempotent(scope = token, key = attempt.derive_key("event"))]
async fn receive(attempt: Attempt, event: String) -> String {
    format!("{event} {}", attempt.number())
}

fn main() {}

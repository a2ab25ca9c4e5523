use axum_idem::{Attempt, idempotent};

#[idempotent(scope = token, runtime = attempt.idempotency())]
async fn place_trade(attempt: Attempt, order: String) -> String {
    format!("{order} {}", attempt.number())
}

fn main() {}

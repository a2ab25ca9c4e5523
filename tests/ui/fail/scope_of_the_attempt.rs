use axum_idem::{Attempt, idempotent};

#[idempotent(scope = attempt.number())]
async fn place_trade(attempt: Attempt, order: String) -> String {
    format!("{order} {}", attempt.number())
}

fn main() {}

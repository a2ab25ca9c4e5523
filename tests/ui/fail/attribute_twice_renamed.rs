use axum_idem::idempotent;
use axum_idem::idempotent as retried;

#[idempotent(scope = token)]
#[retried(scope = global)]
async fn place_trade(order: String) -> String {
    order
}

fn main() {}

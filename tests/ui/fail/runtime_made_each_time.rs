use axum_idem::{Idempotency, idempotent};

#[idempotent(scope = token, runtime = Idempotency::builder().build())]
async fn place_trade(order: String) -> String {
    order
}

fn main() {}

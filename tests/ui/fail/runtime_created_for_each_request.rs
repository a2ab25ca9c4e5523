use axum_idem::idempotent;

#[idempotent(scope = token, runtime = axum_idem::Idempotency::builder().build())]
async fn place_trade(order: String) -> String {
    order
}

fn main() {}

use axum_idem::idempotent;

#[idempotent(scope = token, crate = elsewhere)]
async fn place_trade(order: String) -> String {
    order
}

fn main() {}

use axum_idem::idempotent;

#[idempotent(scope = token, unknown = all)]
async fn place_trade(order: String) -> String {
    order
}

fn main() {}

use axum_idem::idempotent;

#[idempotent(scope = token, record_body = all)]
async fn place_trade(order: String) -> String {
    order
}

fn main() {}

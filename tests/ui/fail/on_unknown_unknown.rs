use axum_idem::idempotent;

#[idempotent(scope = token, on_unknown = retry)]
async fn place_trade(order: String) -> String {
    order
}

fn main() {}

use axum_idem::idempotent;

#[idempotent(scope = 'static)]
async fn place_trade(order: String) -> String {
    order
}

fn main() {}

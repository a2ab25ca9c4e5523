use axum_idem::idempotent;

#[idempotent(scope = token, record = [2xx, 7xx, 99])]
async fn place_trade(order: String) -> String {
    order
}

fn main() {}

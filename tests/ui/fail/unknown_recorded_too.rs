use axum_idem::idempotent;

#[idempotent(scope = token, record = [2xx, 504], unknown = [504])]
async fn place_trade(order: String) -> String {
    order
}

fn main() {}

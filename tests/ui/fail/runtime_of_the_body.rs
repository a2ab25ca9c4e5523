use axum_idem::idempotent;

#[idempotent(scope = token, runtime = order.idem)]
async fn place_trade(order: String) -> String {
    order
}

fn main() {}

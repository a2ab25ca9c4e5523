use axum_idem::idempotent;

struct Order(String);

#[idempotent(scope = token)]
#[axum::debug_handler]
async fn place_trade(order: Order) -> String {
    order.0
}

fn main() {}

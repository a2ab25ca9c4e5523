use axum_idem::idempotent;

#[idempotent(scope = token)]
struct Order {
    symbol: String,
}

fn main() {
    let order = Order { symbol: String::new() };
    drop(order.symbol);
}

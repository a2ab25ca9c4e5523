use axum_idem::idempotent;

fn main() {
    let place_trade = #[idempotent(scope = token)]
    async |order: String| order;
    let _ = place_trade(String::new());
}

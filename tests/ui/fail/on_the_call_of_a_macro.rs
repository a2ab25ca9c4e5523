use axum_idem::idempotent;

macro_rules! handler {
    () => {
        async fn place_trade(order: String) -> String {
            order
        }
    };
}

#[idempotent(scope = token)]
handler!();

fn main() {
    let _ = place_trade;
}

use axum_idem::idempotent;

struct Desk;

#[idempotent(scope = token)]
impl Desk {
    async fn place_trade(order: String) -> String {
        order
    }
}

fn main() {
    let _ = Desk::place_trade(String::new());
}

use axum_idem::idempotent;

struct Desk;

impl Desk {
    #[idempotent(scope = token)]
    async fn place_trade(&self, order: String) -> String {
        order
    }
}

fn main() {
    let _ = Desk.place_trade(String::new());
}

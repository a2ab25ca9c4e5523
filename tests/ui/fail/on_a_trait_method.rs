use axum_idem::idempotent;

trait Desk {
    #[idempotent(scope = token)]
    fn place_trade(order: String) -> String;
}

struct Mine;

impl Desk for Mine {
    fn place_trade(order: String) -> String {
        order
    }
}

fn main() {
    let _ = Mine::place_trade(String::new());
}

use axum_idem::idempotent;

struct Desk;

#[async_trait::async_trait]
trait Trades {
    async fn place_trade(order: String) -> String;
}

#[async_trait::async_trait]
impl Trades for Desk {
    #[idempotent(scope = token)]
    async fn place_trade(order: String) -> String {
        order
    }
}

fn main() {}

use axum::extract::State;
use axum_idem::idempotent;

#[derive(Clone)]
struct Desk(String);

#[idempotent(scope = token, runtime = desk)]
async fn place_trade(State(desk): State<Desk>, order: String) -> String {
    desk.0 + &order
}

fn main() {}

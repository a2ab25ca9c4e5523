use axum::extract::State;
use axum_idem::idempotent;

#[idempotent(scope = token)]
async fn place_trade(State(desk): State<impl ToString>, order: String) -> String {
    desk.to_string() + &order
}

fn main() {
    let _ = axum::Router::<()>::new().route("/", axum::routing::post(place_trade));
}

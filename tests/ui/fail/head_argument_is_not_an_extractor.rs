use axum_idem::idempotent;

struct Desk(String);

#[idempotent(scope = token)]
async fn place_trade(desk: Desk, order: String) -> String {
    desk.0 + &order
}

fn main() {
    let _ = axum::Router::<()>::new().route("/", axum::routing::post(place_trade));
}

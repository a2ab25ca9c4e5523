use axum_idem::idempotent;

#[idempotent(scope = token)]
async fn place_trade(order: String) -> ! {
    panic!("{order}")
}

fn main() {
    let _ = axum::Router::<()>::new().route("/", axum::routing::post(place_trade));
}

use axum::extract::Path;
use axum_idem::idempotent;

#[idempotent(scope = [token, account])]
async fn place_trade(Path(account): Path<String>, order: String) -> String {
    account + &order
}

fn main() {
    let _ = axum::Router::<()>::new().route("/", axum::routing::post(place_trade));
}

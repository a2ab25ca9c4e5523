use axum::{Router, extract::Path, routing::post};
use axum_idem::idempotent;

#[idempotent(scope = token)]
async fn place_trade(Path(account): Path<u64>, order: String) -> String {
    let doubled =
}

fn main() {
    let _: Router = Router::new().route("/", post(place_trade));
}

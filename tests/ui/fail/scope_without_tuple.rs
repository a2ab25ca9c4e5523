use axum::extract::Path;
use axum_idem::idempotent;

#[idempotent(scope = account.0, account.1)]
async fn place_trade(Path(account): Path<(u64, u64)>, order: String) -> String {
    format!("{account:?} {order}")
}

fn main() {
    let _ = axum::Router::<()>::new().route("/", axum::routing::post(place_trade));
}

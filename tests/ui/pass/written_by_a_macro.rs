#![deny(warnings)]
use axum::extract::Path;
use axum::{Router, routing::post};
use axum_idem::idempotent;

macro_rules! handler {
    ($name:ident, $account:ident, $scope:expr, $ttl:literal, $wait:literal, $code:literal) => {
        #[idempotent(scope = $scope, ttl = $ttl, in_flight = wait($wait), record = [2xx, $code])]
        async fn $name(Path($account): Path<u64>, order: String) -> String {
            format!("{order} {}", $account)
        }
    };
}

handler!(place_trade, account, (token, account), "1h", "5s", 503);
handler!(
    cancel_trade,
    account,
    header("x-workspace-id"),
    "2h",
    "6s",
    502
);

pub fn main() {
    let _: Router = Router::new().route("/{account}", post(place_trade).delete(cancel_trade));
}

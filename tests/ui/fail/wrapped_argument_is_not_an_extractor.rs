use axum::Json;
use axum_idem::idempotent;

// A validating extractor whose feature for `Json` is off.
struct Valid<T>(T);

#[axum::debug_handler]
#[idempotent(scope = token)]
async fn place_trade(Valid(Json(order)): Valid<Json<String>>) -> String {
    order
}

fn main() {}

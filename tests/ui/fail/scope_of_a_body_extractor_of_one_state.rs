use axum::extract::{FromRequest, Request};
use axum::{Router, routing::post};
use axum_idem::idempotent;

struct Order(u64);

#[derive(Clone)]
struct Desk;

impl FromRequest<Desk> for Order {
    type Rejection = ();

    async fn from_request(_: Request, _: &Desk) -> Result<Self, ()> {
        Err(())
    }
}

#[idempotent(scope = order.0)]
async fn place_trade(order: Order) -> String {
    order.0.to_string()
}

fn main() {
    let _: Router<Desk> = Router::new().route("/", post(place_trade));
}

use std::rc::Rc;

use axum_idem::idempotent;

struct Desk(Rc<u8>);

impl<S: Sync> axum::extract::FromRequestParts<S> for Desk {
    type Rejection = ();

    async fn from_request_parts(_: &mut axum::http::request::Parts, _: &S) -> Result<Self, ()> {
        Ok(Self(Rc::new(1)))
    }
}

#[idempotent(scope = token)]
async fn place_trade(desk: Desk, order: String) -> String {
    drop(desk);
    order
}

fn main() {
    let _ = axum::Router::<()>::new().route("/", axum::routing::post(place_trade));
}

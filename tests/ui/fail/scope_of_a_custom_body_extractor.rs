use axum::extract::{FromRequest, Request};
use axum::{Router, routing::post};
use axum_idem::idempotent;

struct Checked(String);

impl<S: Send + Sync> FromRequest<S> for Checked {
    type Rejection = <String as FromRequest<S>>::Rejection;

    async fn from_request(request: Request, state: &S) -> Result<Self, Self::Rejection> {
        String::from_request(request, state).await.map(Self)
    }
}

#[idempotent(scope = (token, order))]
async fn place_trade(Checked(order): Checked) -> String {
    order
}

fn main() {
    let _: Router = Router::new().route("/", post(place_trade));
}

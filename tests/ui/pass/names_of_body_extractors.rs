#![deny(warnings)]
use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use axum::{Router, routing::post};
use axum_idem::idempotent;

mod tracing {
    /// Does not read the body, although a body extractor has the same name.
    pub struct Request(pub u64);
}

impl<S: Sync> FromRequestParts<S> for tracing::Request {
    type Rejection = std::convert::Infallible;

    async fn from_request_parts(_: &mut Parts, _: &S) -> Result<Self, Self::Rejection> {
        Ok(Self(1))
    }
}

#[idempotent(scope = request.0)]
async fn place_trade(request: tracing::Request, order: String) -> String {
    format!("{order} {}", request.0)
}

#[idempotent(scope = request.0)]
async fn cancel_trade(request: tracing::Request) -> String {
    request.0.to_string()
}

pub fn main() {
    let _: Router = Router::new().route("/", post(place_trade).delete(cancel_trade));
}

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

/// Has no type parameter, as every body extractor of this name has.
pub struct Json(pub u64);

impl<S: Sync> FromRequestParts<S> for Json {
    type Rejection = std::convert::Infallible;

    async fn from_request_parts(_: &mut Parts, _: &S) -> Result<Self, Self::Rejection> {
        Ok(Self(1))
    }
}

#[idempotent(scope = json.0)]
async fn confirm_trade(json: Json, order: String) -> String {
    format!("{order} {}", json.0)
}

#[idempotent(scope = json.0)]
async fn settle_trade(json: Json) -> String {
    json.0.to_string()
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
    let _: Router = Router::new()
        .route("/", post(place_trade).delete(cancel_trade))
        .route("/open", post(confirm_trade).delete(settle_trade));
}

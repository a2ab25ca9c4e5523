use axum_idem::idempotent;

struct TradeError;

impl axum::response::IntoResponse for TradeError {
    fn into_response(self) -> axum::response::Response {
        ().into_response()
    }
}

impl From<u8> for TradeError {
    fn from(_: u8) -> Self {
        Self
    }
}

#[idempotent(scope = token)]
async fn place_trade(order: String) -> Result<String, TradeError> {
    let number: u64 = order.parse()?;
    Ok(number.to_string())
}

fn main() {}

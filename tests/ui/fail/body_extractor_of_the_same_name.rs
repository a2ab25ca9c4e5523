use axum_idem::idempotent;

struct Body(u64);

#[idempotent(scope = body.0)]
async fn place_trade(body: Body) -> String {
    body.0.to_string()
}

fn main() {}

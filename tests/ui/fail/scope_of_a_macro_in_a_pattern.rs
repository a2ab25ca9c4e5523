use axum::extract::State;
use axum_idem::idempotent;

macro_rules! state {
    ($app:ident) => {
        State($app)
    };
}

#[idempotent(scope = (token, tenant))]
async fn place_trade(state!(tenant): State<u64>, order: String) -> String {
    format!("{order} {tenant}")
}

fn main() {}

use axum::extract::State;
use axum_idem::{Idempotency, idempotent};

fn own(idem: Idempotency) -> Idempotency {
    idem
}

#[idempotent(scope = global, runtime = own(idem))]
async fn place_trade(State(idem): State<Idempotency>, order: String) -> String {
    order
}

fn main() {}

use axum::Json;
use axum_idem::idempotent;

#[derive(serde::Deserialize)]
struct Event {
    id: u64,
}

#[idempotent(scope = global, key = event.id)]
async fn deliver(Json(event): Json<Event>) -> String {
    event.id.to_string()
}

fn main() {}

//! The store calls of one request, as the engine makes them.

use std::time::Duration;

use http::{HeaderMap, HeaderValue, StatusCode, header};
use idem_runtime::store::{Claim, Claimed, Holder, Record, Settled, Store};
use idem_runtime::{Fingerprint, RecordId, Scope};

const LEASE: Duration = Duration::from_secs(30);
pub const DAY: Duration = Duration::from_secs(24 * 60 * 60);
const FINGERPRINT: Fingerprint = Fingerprint::from_bytes([7; 32]);

/// A record of a response of 300 bytes.
pub fn record() -> Record {
    let mut headers = HeaderMap::new();
    let json = HeaderValue::from_static("application/json");
    headers.insert(header::CONTENT_TYPE, json);
    Record::answer(FINGERPRINT, StatusCode::CREATED, &headers, &[b'n'; 300])
        .expect("the record is small enough")
}

pub fn id(n: u64) -> RecordId {
    let scope = Scope::new().value("Bearer 0123456789abcdef0123456789abcdef");
    RecordId::new(
        "bench",
        &scope,
        &format!("8e03978e-40d5-43e8-bc93-{n:012x}"),
    )
}

pub async fn claim(store: &impl Store, n: u64) -> Claimed {
    let claim = Claim::new(id(n), FINGERPRINT, LEASE, DAY);
    store.claim(claim).await.expect("the store works")
}

/// Claims and completes the `n`th key, which must be new.
pub async fn first_sight(store: &impl Store, n: u64) {
    assert!(run(store, n, DAY).await, "the key was not new: {n}");
}

/// Like `first_sight`, with a record that expires after a millisecond.
pub async fn short_lived(store: &impl Store, n: u64) {
    let expires_at_once = Duration::from_millis(1);
    assert!(
        run(store, n, expires_at_once).await,
        "the key was not new: {n}"
    );
}

/// Claims and completes the `n`th key. Returns whether both succeeded.
pub async fn run(store: &impl Store, n: u64, ttl: Duration) -> bool {
    let claim = Claim::new(id(n), FINGERPRINT, LEASE, DAY);
    let (id, owner) = (claim.id, claim.owner);
    let Ok(Claimed::Fresh { fence, .. }) = store.claim(claim).await else {
        return false;
    };
    let holder = Holder { id, owner, fence };
    let settled = store.complete(holder, record(), ttl).await;
    settled.expect("the store works") == Settled::Done
}

/// Reads the record of the `n`th key.
pub async fn replay(store: &impl Store, n: u64) {
    let claimed = claim(store, n).await;
    assert!(
        matches!(claimed, Claimed::Recorded { .. }),
        "there is no record: {n}"
    );
}

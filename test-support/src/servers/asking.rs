//! Claims and records as these tests make them.

use std::time::Duration;

use http::{HeaderMap, StatusCode};
use idem_runtime::store::{Claim, Claimed, Holder, Record, Store};
use idem_runtime::{Fingerprint, RecordId, Scope};

pub const FINGERPRINT: Fingerprint = Fingerprint::from_bytes([7; 32]);
pub const HOUR: Duration = Duration::from_secs(3600);

pub fn id(name: &str) -> RecordId {
    RecordId::new("tests", &Scope::new().value("acme"), name)
}

pub fn claim(name: &str) -> Claim {
    Claim::new(id(name), FINGERPRINT, HOUR, HOUR)
}

pub fn record(body: &[u8]) -> Record {
    Record::answer(FINGERPRINT, StatusCode::CREATED, &HeaderMap::new(), body).expect("it fits")
}

/// Claims, and expects to win.
pub async fn win(store: &impl Store, claim: Claim) -> Holder {
    let (id, owner) = (claim.id, claim.owner);
    match store.claim(claim).await {
        Ok(Claimed::Fresh { fence, .. }) => Holder { id, owner, fence },
        other => panic!("not won: {other:?}"),
    }
}

pub async fn replay(store: &impl Store, name: &str) -> Record {
    match store.claim(claim(name)).await {
        Ok(Claimed::Recorded { record, .. }) => record,
        other => panic!("no replay: {other:?}"),
    }
}

//! Claims and records for the tests of stores.

use std::time::Duration;

use http::{HeaderMap, StatusCode};
use idem_runtime::store::{Claim, Claimed, Holder, Record, Settled, Store};
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
    Record::answer(FINGERPRINT, StatusCode::CREATED, &HeaderMap::new(), body)
        .expect("the record is small enough")
}

/// Claims, and asserts that the claim wins.
pub async fn win(store: &impl Store, claim: Claim) -> Holder {
    let (id, owner) = (claim.id, claim.owner);
    match store.claim(claim).await {
        Ok(Claimed::Fresh { fence, .. }) => Holder { id, owner, fence },
        other => panic!("the claim did not win: {other:?}"),
    }
}

pub async fn replay(store: &impl Store, name: &str) -> Record {
    match store.claim(claim(name)).await {
        Ok(Claimed::Recorded { record, .. }) => record,
        other => panic!("there is no record to replay: {other:?}"),
    }
}

/// Claims a key and completes it.
pub async fn complete(store: &impl Store, name: &str) {
    let holder = win(store, claim(name)).await;
    let completed = store.complete(holder, record(b"{}"), HOUR).await;
    assert_eq!(completed.expect("the store works"), Settled::Done);
}

//! Compares a full listing with a look-up of each record.

use std::collections::BTreeMap;
use std::time::Duration;

use http::StatusCode;
use idem_runtime::store::{
    Claim, Claimed, Entry, Holder, Origin, Page, Query, Record, Settled, State, StateKind, Store,
    Summary,
};
use idem_runtime::{Fingerprint, RecordId, TraceId};

/// All pages of two records each. No record is on two of them.
pub async fn listing(store: &(impl Store + ?Sized)) -> BTreeMap<RecordId, Summary> {
    let mut found = BTreeMap::new();
    let mut query = Query::all().limit(2);
    loop {
        let Page { entries, next, .. } = store.list(query.clone()).await.expect("it lists");
        for entry in entries {
            let twice = found.insert(entry.id, entry);
            assert!(twice.is_none(), "listed twice: {twice:?}");
        }
        match next {
            Some(next) => query = query.after(next),
            None => return found,
        }
    }
}

/// Each record is listed in the state in which it is looked up. The store must reply immediately, so that
/// nothing happens between the two.
pub async fn listing_is_true(store: &(impl Store + ?Sized)) {
    for (id, listed) in listing(store).await {
        let entry = store.look_up(id).await.expect("it is looked up");
        let is_true = match (&listed.state, &entry) {
            (
                State::InFlight { fence, attempt, .. },
                Some(Entry::InFlight {
                    fence: held,
                    attempt: number,
                    ..
                }),
            )
            | (
                State::Unknown { fence, attempt, .. },
                Some(Entry::Unknown {
                    fence: held,
                    attempt: number,
                    ..
                }),
            ) => (fence, attempt) == (held, number),
            (State::Recorded { status, .. }, Some(Entry::Recorded { record, .. })) => {
                *status == record.status()
            }
            _ => false,
        };
        assert!(is_true, "listed as {listed:?}, and looked up as {entry:?}");
    }
}

/// The only record of a store, if there is any.
pub async fn only_state(store: &(impl Store + ?Sized)) -> Option<StateKind> {
    let all = listing(store).await;
    assert!(all.len() < 2, "one key has {} records", all.len());
    all.into_values().next().map(|entry| entry.state.kind())
}

/// A replay names the trace of the first request.
pub async fn a_replay_has_the_trace(store: &(impl Store + ?Sized)) {
    const TIME: Duration = Duration::from_secs(60);
    let (id, fingerprint) = (
        RecordId::from_bytes([0x7e; 32]),
        Fingerprint::from_bytes([7; 32]),
    );
    for trace in [TraceId::from_bytes([0xab; 16]), None] {
        let mut claim = Claim::new(id, fingerprint, TIME, TIME);
        claim.origin = Origin::new("desk::pay").with_trace_id(trace);
        let owner = claim.owner;
        let Ok(Claimed::Fresh { fence, .. }) = store.claim(claim).await else {
            panic!("nobody holds the record");
        };
        let record = Record::not_kept(fingerprint, StatusCode::OK);
        let holder = Holder { id, owner, fence };
        let settled = store.complete(holder, record, TIME).await;
        assert!(matches!(settled, Ok(Settled::Done)), "{settled:?}");
        let again = store.claim(Claim::new(id, fingerprint, TIME, TIME)).await;
        let Ok(Claimed::Recorded { record, .. }) = again else {
            panic!("{again:?}");
        };
        assert_eq!(record.first_trace_id(), trace);
        assert!(store.forget(id).await.expect("it forgets"));
    }
}

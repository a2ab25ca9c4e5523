//! A full listing, held against what is looked up one by one.

use std::collections::BTreeMap;

use idem_runtime::RecordId;
use idem_runtime::store::{Entry, Page, Query, State, StateKind, Store, Summary};

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

/// Each record is listed in the state in which it is looked up. For a store that answers at once, so that
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

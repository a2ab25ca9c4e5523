//! A sealed store follows the rules of `Store`, opens only what it sealed, and shows the store below no response.
#![cfg(all(feature = "seal", feature = "testing"))]

use test_support::servers;

use std::error::Error;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use http::{HeaderMap, HeaderValue, StatusCode};
use idem_runtime::store::{
    Claim, Claimed, DecodeError, Entry, Holder, Keys, MemoryStore, NearCache, OnUnknown, Page,
    Query, Record, Sealed, Settled, State, StateKind, Store, StoreError, StoreFuture,
};
use idem_runtime::testing::Contract;
use idem_runtime::{Idempotency, RecordId};

use servers::asking::{FINGERPRINT, HOUR, claim, complete, id, record, replay, win};

const OLD: [u8; 32] = [1; 32];
const NEW: [u8; 32] = [2; 32];

fn keys() -> Keys {
    Keys::new().primary(1, OLD)
}

/// A store whose completed records a test can replace, as somebody who can write to the store would.
#[derive(Clone, Default)]
struct Open {
    store: MemoryStore,
    replaced: Arc<Mutex<Vec<(RecordId, Record)>>>,
}

impl Open {
    /// From now on, the store holds `record` under the name.
    fn replace(&self, name: &str, record: Record) {
        let mut replaced = self.replaced.lock().expect("no panic");
        replaced.push((id(name), record));
    }

    async fn stored(&self, name: &str) -> Record {
        match self.store.look_up(id(name)).await {
            Ok(Some(Entry::Recorded { record, .. })) => record,
            other => panic!("there is no record: {other:?}"),
        }
    }

    fn now(&self, id: RecordId, record: Record) -> Record {
        let replaced = self.replaced.lock().expect("no panic");
        let replacement = replaced.iter().rev().find(|(of, _)| *of == id);
        replacement.map_or(record, |(_, record)| record.clone())
    }
}

impl Store for Open {
    fn claim(&self, claim: Claim) -> StoreFuture<Claimed> {
        let (open, id) = (self.clone(), claim.id);
        self.store.claim(claim).map(move |claimed| match claimed {
            Claimed::Recorded { record, expires_in } => Claimed::Recorded {
                record: open.now(id, record),
                expires_in,
            },
            claimed => claimed,
        })
    }

    fn renew(&self, holder: Holder, lease: Duration) -> StoreFuture<Settled> {
        self.store.renew(holder, lease)
    }

    fn complete(&self, holder: Holder, record: Record, ttl: Duration) -> StoreFuture<Settled> {
        self.store.complete(holder, record, ttl)
    }

    fn release(&self, holder: Holder) -> StoreFuture<Settled> {
        self.store.release(holder)
    }

    fn abandon(&self, holder: Holder) -> StoreFuture<Settled> {
        self.store.abandon(holder)
    }

    fn look_up(&self, id: RecordId) -> StoreFuture<Option<Entry>> {
        self.store.look_up(id)
    }

    fn forget(&self, id: RecordId) -> StoreFuture<bool> {
        self.store.forget(id)
    }

    fn resolve(
        &self,
        id: RecordId,
        fence: u64,
        record: Record,
        ttl: Duration,
    ) -> StoreFuture<Settled> {
        self.store.resolve(id, fence, record, ttl)
    }
}

/// Claims twice, because the first claim must not have removed the entry.
async fn refused(store: &impl Store, name: &str) -> DecodeError {
    let mut refused = Vec::new();
    for _ in 0..2 {
        match store.claim(claim(name)).await {
            Err(StoreError::Undecodable(error)) => refused.push(error),
            other => panic!("a claim got {other:?}"),
        }
    }
    assert_eq!(refused[0], refused[1]);
    refused[0]
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sealed_store_keeps_every_rule() {
    Contract::of(Sealed::around(MemoryStore::default(), keys()))
        .assert()
        .await;
    let memory = MemoryStore::default();
    // Two versions of one service, in the second step of a rotation.
    let before = Sealed::around(memory.clone(), keys().also(2, NEW));
    let after = Sealed::around(memory, Keys::new().primary(2, NEW).also(1, OLD));
    Contract::of_two(before, after).rounds(10).assert().await;
}

/// A record that was sealed twice would never open.
#[tokio::test]
async fn a_store_that_is_sealed_already_is_refused() {
    let sealed = Sealed::around(MemoryStore::default(), keys());
    let twice = Sealed::around(sealed, keys());
    let holder = win(&twice, claim("k")).await;
    let completed = twice.complete(holder, record(b"response"), HOUR).await;
    assert!(
        matches!(completed, Err(StoreError::Unfit(_))),
        "{completed:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_near_cache_on_either_side_keeps_every_rule() {
    let inside = Sealed::around(NearCache::new(MemoryStore::default()), keys());
    Contract::of(inside).rounds(10).assert().await;
    let outside = NearCache::new(Sealed::around(MemoryStore::default(), keys()));
    Contract::of(outside).rounds(10).assert().await;
}

/// What lies in the memory of the process, as `Sealed` documents it.
#[tokio::test]
async fn a_near_cache_keeps_what_the_store_below_it_returns() {
    let below = NearCache::new(MemoryStore::default());
    let sealed = Sealed::around(below.clone(), keys());
    let outside = NearCache::new(sealed.clone());
    let holder = win(&outside, claim("k")).await;
    let completed = outside.complete(holder, secret(FINGERPRINT), HOUR).await;
    assert_eq!(completed.expect("the store works"), Settled::Done);
    for _ in 0..2 {
        assert_eq!(replay(&sealed, "k").await, secret(FINGERPRINT));
        assert!(!shows(replay(&below, "k").await.as_bytes()));
        assert_eq!(replay(&outside, "k").await, secret(FINGERPRINT));
    }
    // The opened record stays in the outer cache, and the sealed one in the inner cache.
    let other = Sealed::around(below, Keys::new().primary(2, NEW));
    assert_eq!(refused(&other, "k").await, DecodeError::MissingKey(1));
    assert!(shows(replay(&outside, "k").await.as_bytes()));
}

/// Rule 6, with an entry that the key does not open.
#[tokio::test(flavor = "multi_thread")]
async fn a_plain_record_in_the_store_is_an_error_and_stays() {
    let memory = MemoryStore::default();
    let sealed = Sealed::around(memory.clone(), keys());
    complete(&memory, "k").await;
    assert_eq!(refused(&sealed, "k").await, DecodeError::NotSealed);
    assert_eq!(replay(&memory, "k").await, record(b"{}"));
    let listed = |page: Page| page.entries[0].state.clone();
    let recorded = || Query::all().state(StateKind::Recorded);
    let page = sealed.list(recorded()).await.expect("a page");
    assert_eq!(listed(page), State::Unreadable(DecodeError::NotSealed));
    // A service that turns sealing on may accept them for a while.
    let reading = sealed.clone().read_unsealed();
    assert_eq!(replay(&reading, "k").await, record(b"{}"));
    let page = reading.list(recorded()).await.expect("a page");
    assert!(matches!(listed(page), State::Recorded { .. }));
    complete(&reading, "new").await;
    assert_eq!(replay(&sealed, "new").await, record(b"{}"));
}

#[tokio::test]
async fn records_that_were_swapped_do_not_open() {
    let open = Open::default();
    let sealed = Sealed::around(open.clone(), keys());
    complete(&sealed, "alice").await;
    complete(&sealed, "bob").await;
    open.replace("alice", open.stored("bob").await);
    assert_eq!(refused(&sealed, "alice").await, DecodeError::NotAuthentic);
    open.replace("alice", open.stored("alice").await);
    assert_eq!(replay(&sealed, "alice").await, record(b"{}"));
}

#[tokio::test]
async fn a_record_with_another_fingerprint_does_not_open() {
    let open = Open::default();
    let sealed = Sealed::around(open.clone(), keys());
    complete(&sealed, "k").await;
    let mut bytes = open.stored("k").await.as_bytes().to_vec();
    bytes[2..34].fill(8);
    open.replace(
        "k",
        Record::decode(bytes.into()).expect("the form is right"),
    );
    assert_eq!(refused(&sealed, "k").await, DecodeError::NotAuthentic);
}

/// Readers first, then the primary key: at each step, both versions open the records of both.
#[tokio::test]
async fn a_rotation_replays_every_record_at_each_step() {
    let memory = MemoryStore::default();
    let with = |keys| Sealed::around(memory.clone(), keys);
    let steps = [
        with(Keys::new().primary(1, OLD)),
        with(Keys::new().primary(1, OLD).also(2, NEW)),
        with(Keys::new().primary(2, NEW).also(1, OLD)),
    ];
    for (step, versions) in steps.windows(2).enumerate() {
        for (number, version) in versions.iter().enumerate() {
            let name = format!("{step}-{number}");
            complete(version, &name).await;
            for reader in versions {
                assert_eq!(replay(reader, &name).await, record(b"{}"), "{name}");
            }
        }
    }
    // The last step comes too early for the records of the old key.
    let last = with(Keys::new().primary(2, NEW));
    assert_eq!(refused(&last, "0-0").await, DecodeError::MissingKey(1));
    assert_eq!(replay(&steps[2], "0-0").await, record(b"{}"));
    assert_eq!(replay(&last, "1-1").await, record(b"{}"));
}

#[tokio::test]
async fn the_error_names_the_missing_key() {
    let memory = MemoryStore::default();
    complete(&Sealed::around(memory.clone(), keys()), "k").await;
    let other = Sealed::around(memory, Keys::new().primary(2, NEW));
    let error = other.claim(claim("k")).await.expect_err("no key");
    let source = error.source().expect("the reason").to_string();
    assert!(source.contains("sealed with key 1"), "{source}");
}

#[tokio::test]
async fn a_wrong_key_of_the_same_id_is_an_error() {
    let memory = MemoryStore::default();
    complete(&Sealed::around(memory.clone(), keys()), "k").await;
    let other = Sealed::around(memory, Keys::new().primary(1, NEW));
    assert_eq!(refused(&other, "k").await, DecodeError::NotAuthentic);
}

/// Two records of one response differ, because each has its own nonce.
#[tokio::test]
async fn each_record_has_its_own_nonce() {
    let memory = MemoryStore::default();
    let sealed = Sealed::around(memory.clone(), keys());
    let mut nonces = std::collections::BTreeSet::new();
    for number in 0..100 {
        let name = number.to_string();
        complete(&sealed, &name).await;
        let stored = replay(&memory, &name).await;
        nonces.insert(stored.as_bytes()[46..70].to_vec());
    }
    assert_eq!(nonces.len(), 100);
}

/// A response, a header and a status that a store must not show.
fn secret(fingerprint: idem_runtime::Fingerprint) -> Record {
    let mut headers = HeaderMap::new();
    headers.append("x-card", HeaderValue::from_static("4000-0000-0000-0002"));
    let status = StatusCode::IM_A_TEAPOT;
    Record::answer(fingerprint, status, &headers, b"secret-token").expect("fits")
}

fn shows(bytes: &[u8]) -> bool {
    let contains = |part: &[u8]| bytes.windows(part.len()).any(|window| window == part);
    contains(b"secret-token") || contains(b"4000-0000") || contains(b"x-card")
}

#[tokio::test]
async fn a_listing_shows_the_status_and_the_length_of_sealed_records() {
    let memory = MemoryStore::default();
    let sealed = Sealed::around(memory.clone(), keys());
    let holder = win(&sealed, claim("k")).await;
    let kept = secret(FINGERPRINT);
    let completed = sealed.complete(holder, kept.clone(), HOUR).await;
    assert_eq!(completed.expect("the store works"), Settled::Done);
    for query in [Query::all(), Query::all().state(StateKind::Recorded)] {
        let page = sealed.list(query.clone()).await.expect("a page");
        let [listed] = &page.entries[..] else {
            panic!("{page:?}");
        };
        let State::Recorded { status, bytes, .. } = listed.state else {
            panic!("{listed:?}");
        };
        let expected = (StatusCode::IM_A_TEAPOT, kept.as_bytes().len() as u64);
        assert_eq!((status, bytes), expected);
        // Without the key, the record is listed, and nothing of it is shown.
        let unreadable = |store: Box<dyn Store>, error| {
            let query = query.clone();
            async move {
                let page = store.list(query).await.expect("a page");
                let state = &page.entries[0].state;
                assert_eq!(*state, State::Unreadable(error));
                assert_eq!(state.kind(), StateKind::Recorded);
            }
        };
        unreadable(Box::new(memory.clone()), DecodeError::Sealed).await;
        let other = Sealed::around(memory.clone(), Keys::new().primary(2, NEW));
        unreadable(Box::new(other), DecodeError::MissingKey(1)).await;
    }
}

#[tokio::test]
async fn an_operator_without_sealed_gets_an_error_for_a_sealed_record() {
    let memory = MemoryStore::default();
    complete(&Sealed::around(memory.clone(), keys()), "k").await;
    let idem = Idempotency::builder().store(memory.clone()).build();
    let found = idem.look_up(id("k")).await;
    assert!(
        matches!(found, Err(StoreError::Undecodable(DecodeError::Sealed))),
        "{found:?}"
    );
    let sealed = Sealed::around(memory, keys());
    let idem = Idempotency::builder().store(sealed).build();
    let found = idem.look_up(id("k")).await.expect("it opens");
    assert!(matches!(found, Some(Entry::Recorded { .. })), "{found:?}");
}

#[tokio::test]
async fn a_resolved_key_is_sealed() {
    let memory = MemoryStore::default();
    let sealed = Sealed::around(memory.clone(), keys());
    let mut claim = claim("k");
    claim.on_unknown = OnUnknown::Hold;
    let holder = win(&sealed, claim).await;
    assert_eq!(sealed.abandon(holder).await.expect("works"), Settled::Done);
    let resolved = sealed.resolve(id("k"), holder.fence, secret(FINGERPRINT), HOUR);
    assert_eq!(resolved.await.expect("works"), Settled::Done);
    assert!(!shows(replay(&memory, "k").await.as_bytes()));
    assert_eq!(replay(&sealed, "k").await, secret(FINGERPRINT));
}

#[test]
#[should_panic(expected = "a sealed store needs a primary key")]
fn a_sealed_store_needs_a_primary_key() {
    let _ = Sealed::around(MemoryStore::default(), Keys::new().also(1, OLD));
}

/// A sealed record has other bytes each time, and the store recognizes a repeated record by its bytes.
#[cfg(feature = "sqlite")]
#[tokio::test]
async fn a_record_that_is_sent_again_is_recognized() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("records.db");
    let store = idem_runtime::store::SqliteStore::open(&path).await;
    let store = Sealed::around(store.expect("a file"), keys());
    let holder = win(&store, claim("k")).await;
    let mut done = Vec::new();
    for record in [secret(FINGERPRINT), secret(FINGERPRINT), record(b"other")] {
        let settled = store.complete(holder, record, HOUR).await;
        done.push(settled.expect("the store works"));
    }
    assert_eq!(done, [Settled::Done, Settled::Done, Settled::Lost]);
    assert_eq!(replay(&store, "k").await, secret(FINGERPRINT));
}

/// Reads every byte of the file and its log, before and after the log is merged into the file.
#[cfg(feature = "sqlite")]
#[tokio::test]
async fn an_sqlite_file_contains_no_response() {
    use idem_runtime::store::SqliteStore;

    async fn stored(seals: bool) -> Vec<u8> {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("records.db");
        let store = SqliteStore::open(&path).await.expect("a file");
        let store: Arc<dyn Store> = if seals {
            Arc::new(Sealed::around(store, keys()))
        } else {
            Arc::new(store)
        };
        let holder = win(&store, claim("k")).await;
        let completed = store.complete(holder, secret(FINGERPRINT), HOUR).await;
        assert_eq!(completed.expect("the store works"), Settled::Done);
        assert_eq!(replay(&store, "k").await, secret(FINGERPRINT));
        let read = || {
            let files = std::fs::read_dir(folder.path()).expect("a folder");
            let paths = files.map(|file| file.expect("a file").path());
            let all = paths.map(|path| std::fs::read(path).unwrap_or_default());
            all.collect::<Vec<_>>().concat()
        };
        let mut bytes = read();
        drop(store);
        tokio::time::sleep(Duration::from_millis(300)).await;
        bytes.extend(read());
        bytes
    }

    assert!(
        shows(&stored(false).await),
        "the test finds a plain response"
    );
    assert!(!shows(&stored(true).await));
}

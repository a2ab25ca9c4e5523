//! The near cache asks the backing store exactly when it has to.

use test_support::servers;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use idem_runtime::store::{
    Claim, Claimed, Entry, Holder, MemoryStore, NearCache, OnUnknown, Record, Settled, Store,
    StoreFuture,
};
#[cfg(feature = "testing")]
use idem_runtime::testing::{Fault, FaultStore, Operation};
use idem_runtime::{Fingerprint, RecordId};

use servers::asking::{HOUR, claim, id, record, replay, win};

#[cfg(feature = "testing")]
const SECOND: Duration = Duration::from_secs(1);

/// Counts the claims that reach the backing store.
#[derive(Clone, Default)]
struct Counted {
    store: MemoryStore,
    claims: Arc<AtomicUsize>,
}

impl Counted {
    fn claims(&self) -> usize {
        self.claims.load(Ordering::Relaxed)
    }
}

impl Store for Counted {
    fn claim(&self, claim: Claim) -> StoreFuture<Claimed> {
        self.claims.fetch_add(1, Ordering::Relaxed);
        self.store.claim(claim)
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

async fn keep(store: &impl Store, name: &str, ttl: Duration) {
    let holder = win(store, claim(name)).await;
    let completed = store.complete(holder, record(name.as_bytes()), ttl).await;
    assert_eq!(completed.expect("the memory store responds"), Settled::Done);
}

#[tokio::test(start_paused = true)]
async fn only_the_first_replay_asks_the_backing_store() {
    let behind = Counted::default();
    let near = NearCache::new(behind.clone());
    keep(&near, "k", HOUR).await;
    assert_eq!(behind.claims(), 1);
    for _ in 0..10 {
        assert_eq!(replay(&near, "k").await, record(b"k"));
    }
    assert_eq!(behind.claims(), 2);
    // After `max_age` the cache asks again.
    tokio::time::advance(Duration::from_secs(10)).await;
    assert_eq!(replay(&near, "k").await, record(b"k"));
    assert_eq!(behind.claims(), 3);
}

#[tokio::test(start_paused = true)]
async fn max_age_limits_how_long_a_record_is_cached() {
    let behind = Counted::default();
    let age = Duration::from_secs(60);
    let near = NearCache::builder().max_age(age).build(behind.clone());
    keep(&near, "k", HOUR).await;
    replay(&near, "k").await;
    tokio::time::advance(Duration::from_secs(59)).await;
    replay(&near, "k").await;
    assert_eq!(behind.claims(), 2);
    tokio::time::advance(Duration::from_secs(1)).await;
    replay(&near, "k").await;
    assert_eq!(behind.claims(), 3);
}

#[tokio::test(start_paused = true)]
async fn an_unlimited_max_age_caches_a_record_for_its_whole_life() {
    let behind = Counted::default();
    let near = NearCache::builder()
        .max_age(Duration::MAX)
        .build(behind.clone());
    keep(&near, "k", Duration::MAX).await;
    for _ in 0..3 {
        replay(&near, "k").await;
        tokio::time::advance(HOUR).await;
    }
    assert_eq!(behind.claims(), 2);
}

#[tokio::test(start_paused = true)]
async fn caching_continues_after_a_forget() {
    let behind = Counted::default();
    let near = NearCache::new(behind.clone());
    keep(&near, "k", HOUR).await;
    replay(&near, "k").await;
    assert!(
        near.forget(id("k"))
            .await
            .expect("the memory store responds")
    );
    keep(&near, "k", HOUR).await;
    let asked = behind.claims();
    for _ in 0..3 {
        replay(&near, "k").await;
    }
    assert_eq!(behind.claims(), asked + 1);
}

#[tokio::test(start_paused = true)]
async fn unfinished_claims_are_never_cached() {
    let behind = Counted::default();
    let near = NearCache::new(behind.clone());
    let holder = win(&near, claim("k")).await;
    for asked in 2..5 {
        let claimed = near.claim(claim("k")).await;
        assert!(matches!(claimed, Ok(Claimed::InFlight { .. })));
        assert_eq!(behind.claims(), asked);
    }
    let abandoned = near.abandon(holder).await;
    assert_eq!(abandoned.expect("the memory store responds"), Settled::Done);
    for asked in 5..8 {
        let mut claim = claim("k");
        claim.on_unknown = OnUnknown::Hold;
        let claimed = near.claim(claim).await;
        assert!(matches!(claimed, Ok(Claimed::Unknown { .. })));
        assert_eq!(behind.claims(), asked);
    }
}

#[tokio::test(start_paused = true)]
async fn a_mismatch_is_not_cached() {
    let behind = Counted::default();
    let near = NearCache::new(behind.clone());
    keep(&near, "k", HOUR).await;
    for asked in 2..5 {
        let mut other = claim("k");
        other.fingerprint = Fingerprint::from_bytes([9; 32]);
        let claimed = near.claim(other).await;
        assert!(matches!(claimed, Ok(Claimed::Recorded { .. })));
        assert_eq!(behind.claims(), asked);
    }
}

#[tokio::test(start_paused = true)]
async fn a_cached_record_never_outlives_the_backing_store() {
    let near = NearCache::builder()
        .max_age(HOUR)
        .build(MemoryStore::default());
    keep(&near, "k", Duration::from_secs(5)).await;
    tokio::time::advance(Duration::from_millis(1)).await;
    replay(&near, "k").await;
    tokio::time::advance(Duration::from_millis(4998)).await;
    replay(&near, "k").await;
    tokio::time::advance(Duration::from_millis(1)).await;
    win(&near, claim("k")).await;
}

#[tokio::test(start_paused = true)]
async fn a_forget_reaches_other_processes_within_max_age() {
    let behind = MemoryStore::default();
    let (here, there) = (NearCache::new(behind.clone()), NearCache::new(behind));
    keep(&here, "k", HOUR).await;
    replay(&here, "k").await;
    replay(&there, "k").await;

    assert!(
        here.forget(id("k"))
            .await
            .expect("the memory store responds")
    );
    let entry = here
        .look_up(id("k"))
        .await
        .expect("the memory store responds");
    assert!(entry.is_none());
    replay(&there, "k").await;
    tokio::time::advance(Duration::from_secs(10)).await;
    win(&there, claim("k")).await;
    let claimed = here.claim(claim("k")).await;
    assert!(matches!(claimed, Ok(Claimed::InFlight { .. })));
}

/// The backing store reports the time left when it reads the record, not when its response arrives.
#[cfg(feature = "testing")]
#[tokio::test(start_paused = true)]
async fn a_late_response_does_not_extend_a_record() {
    let behind = FaultStore::new(MemoryStore::default());
    let near = NearCache::new(behind.clone());
    keep(&near, "k", 5 * SECOND).await;
    behind.script(Operation::Claim, [Fault::DelayReply(SECOND)]);
    replay(&near, "k").await;
    tokio::time::advance(4 * SECOND).await;
    win(&near, claim("k")).await;
}

#[cfg(feature = "testing")]
#[tokio::test(start_paused = true)]
async fn a_record_ages_while_the_reply_of_the_store_is_late() {
    let behind = FaultStore::new(MemoryStore::default());
    let near = NearCache::new(behind.clone());
    keep(&near, "k", HOUR).await;
    behind.script(Operation::Claim, [Fault::DelayReply(SECOND)]);
    replay(&near, "k").await;
    let asked = behind.calls(Operation::Claim);
    tokio::time::advance(9 * SECOND).await;
    replay(&near, "k").await;
    assert_eq!(behind.calls(Operation::Claim), asked + 1);
}

/// The record was read before it was forgotten, but the response arrived afterwards.
#[cfg(feature = "testing")]
#[tokio::test(start_paused = true)]
async fn a_late_response_does_not_restore_a_forgotten_record() {
    let behind = FaultStore::new(MemoryStore::default());
    let near = NearCache::new(behind.clone());
    keep(&near, "k", HOUR).await;
    behind.script(Operation::Claim, [Fault::DelayReply(SECOND)]);
    let late = near.claim(claim("k"));
    let forgets = async {
        tokio::time::sleep(SECOND / 2).await;
        near.forget(id("k")).await
    };
    let (late, forgotten) = tokio::join!(late, forgets);
    assert!(matches!(late, Ok(Claimed::Recorded { .. })));
    assert!(forgotten.expect("the memory store responds"));
    win(&near, claim("k")).await;
}

/// The backing store has already forgotten the record, but has not replied yet.
#[cfg(feature = "testing")]
#[tokio::test(start_paused = true)]
async fn the_cache_is_not_used_during_a_forget() {
    let behind = FaultStore::new(MemoryStore::default());
    let near = NearCache::new(behind.clone());
    keep(&near, "k", HOUR).await;
    replay(&near, "k").await;
    behind.script(Operation::Forget, [Fault::DelayReply(SECOND)]);
    let claims = async {
        tokio::time::sleep(SECOND / 2).await;
        win(&near, claim("k")).await
    };
    let (forgotten, _) = tokio::join!(near.forget(id("k")), claims);
    assert!(forgotten.expect("the memory store responds"));
}

#[tokio::test]
async fn the_cache_stays_within_max_bytes() {
    const ROOM: u64 = 64 << 10;
    let near = NearCache::builder()
        .max_bytes(ROOM)
        .build(MemoryStore::default());
    let body = vec![0; 4 << 10];
    for number in 0..100 {
        let name = format!("k{number}");
        let holder = win(&near, claim(&name)).await;
        let completed = near.complete(holder, record(&body), HOUR).await;
        assert_eq!(completed.expect("the memory store responds"), Settled::Done);
        assert_eq!(replay(&near, &name).await, record(&body));
        assert!(near.bytes() <= ROOM, "{} bytes", near.bytes());
    }
    assert!(near.bytes() > ROOM / 2, "{} bytes", near.bytes());
    // Every record is replayed, whether it is cached or not.
    for number in 0..100 {
        replay(&near, &format!("k{number}")).await;
    }
}

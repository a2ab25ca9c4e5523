//! Behaviour that only the in-memory store has. The contract suite tests the rules of every store.

use std::sync::Barrier;
use std::sync::atomic::{AtomicUsize, Ordering};

use http::{HeaderMap, StatusCode};

use super::*;
use crate::request::fingerprint::Fingerprint;
use crate::request::scope::Scope;
use crate::settings::policy::OnUnknown;
use crate::store::Origin;

pub(super) const LEASE: Duration = Duration::from_secs(30);
pub(super) const TTL: Duration = Duration::from_secs(3600);
const FINGERPRINT: Fingerprint = Fingerprint::from_bytes([7; 32]);

pub(super) fn claim(key: impl std::fmt::Display) -> Claim {
    let id = RecordId::new("", &Scope::new(), &key.to_string());
    Claim::new(id, FINGERPRINT, LEASE, TTL)
}

pub(super) fn kept(body: &[u8]) -> Record {
    Record::answer(FINGERPRINT, StatusCode::CREATED, &HeaderMap::new(), body).expect("fits")
}

pub(super) fn fresh(store: &MemoryStore, claim: &Claim) -> Holder {
    match store.0.claim(claim) {
        Claimed::Fresh { fence, .. } => Holder {
            id: claim.id,
            owner: claim.owner,
            fence,
        },
        other => panic!("expected a fresh claim, got {other:?}"),
    }
}

fn record(store: &MemoryStore, key: impl std::fmt::Display, body: &[u8]) {
    let holder = fresh(store, &claim(key));
    assert_eq!(store.0.complete(holder, kept(body), TTL), Settled::Done);
}

fn replays(store: &MemoryStore, key: impl std::fmt::Display) -> bool {
    matches!(store.0.claim(&claim(key)), Claimed::Recorded { record, .. } if record.is_kept())
}

/// Whether the store has room for one more record, and adds that record.
fn takes(store: &MemoryStore, number: usize) -> bool {
    assert!(number < 10_000, "the store never gets full");
    let claim = claim(number);
    if matches!(store.0.claim(&claim), Claimed::Full) {
        return false;
    }
    store.0.forget(&claim.id);
    record(store, number, &[0; 100]);
    true
}

/// A cache would drop new entries when it is full.
#[test]
fn a_full_store_keeps_every_record() {
    let store = MemoryStore::builder().max_bytes(500_000).build();
    let mut taken = 0;
    while takes(&store, taken) {
        taken += 1;
        // Some caches reject new entries because older entries are read often.
        for _ in 0..5 {
            assert!(replays(&store, taken / 2));
        }
    }
    assert!(taken > 500, "{taken} records in 500 kB");
    assert!((0..taken).all(|key| replays(&store, key)));
    assert!(matches!(store.0.claim(&claim("new")), Claimed::Full));
    assert_eq!(store.evicted(), 0);
}

/// Some caches drop the least recently read entries, claims in flight included.
#[test]
fn claims_in_flight_are_never_evicted() {
    let store = MemoryStore::builder()
        .max_bytes(20_000)
        .on_full(OnFull::EvictOldest)
        .build();
    let held = fresh(&store, &claim("held"));
    for key in 0..5_000 {
        record(&store, key, &[0; 100]);
    }
    assert!(store.evicted() > 4_000, "{} evicted", store.evicted());
    assert!(matches!(
        store.0.claim(&claim("held")),
        Claimed::InFlight { .. }
    ));
    assert_eq!(store.0.complete(held, kept(b"held"), TTL), Settled::Done);
    assert!(replays(&store, "held"));
}

#[test]
fn the_oldest_records_are_evicted_first() {
    let store = MemoryStore::builder()
        .max_bytes(10_000)
        .on_full(OnFull::EvictOldest)
        .build();
    for key in 0..100 {
        record(&store, key, &[0; 100]);
    }
    let kept: Vec<_> = (0..100)
        .filter(|key| store.0.look_up(&claim(key).id).is_some())
        .collect();
    assert!(!kept.is_empty() && kept.len() < 100);
    assert_eq!(kept, (100 - kept.len()..100).collect::<Vec<_>>());
}

#[tokio::test(start_paused = true)]
async fn the_oldest_record_is_the_first_completed_one() {
    let store = MemoryStore::default();
    for (key, ttl) in [("first", 2 * TTL), ("second", TTL)] {
        let holder = fresh(&store, &claim(key));
        assert_eq!(store.0.complete(holder, kept(b"{}"), ttl), Settled::Done);
        tokio::time::advance(Duration::from_millis(1)).await;
    }
    let oldest = store.0.queue.pop_oldest().expect("there are two");
    let shard = store.0.shards.at(oldest.place.shard);
    let oldest = shard.records.at(oldest.place.slot).expect("it is there");
    assert_eq!(oldest.id, claim("first").id);
}

#[test]
fn claims_alone_can_fill_the_store() {
    let store = MemoryStore::builder()
        .max_bytes(2 * claims::WEIGHT)
        .on_full(OnFull::EvictOldest)
        .build();
    let (a, _b) = (fresh(&store, &claim("a")), fresh(&store, &claim("b")));
    assert!(matches!(store.0.claim(&claim("c")), Claimed::Full));
    assert_eq!(store.0.release(a), Settled::Done);
    fresh(&store, &claim("c"));
}

#[test]
fn a_response_larger_than_the_store_still_uses_its_key() {
    let store = MemoryStore::builder().max_bytes(4_000).build();
    record(&store, "heavy", &[0; 5_000]);
    assert!(
        matches!(store.0.claim(&claim("heavy")), Claimed::Recorded { record, .. } if !record.is_kept())
    );
}

#[test]
fn responses_of_admitted_claims_may_exceed_the_budget() {
    let store = MemoryStore::builder().max_bytes(4_000).build();
    let holders: Vec<_> = (0..4).map(|key| fresh(&store, &claim(key))).collect();
    for holder in holders {
        assert_eq!(
            store.0.complete(holder, kept(&[0; 2_000]), TTL),
            Settled::Done
        );
    }
    assert!((0..4).all(|key| replays(&store, key)));
    assert!(matches!(store.0.claim(&claim("new")), Claimed::Full));
}

/// A map that looks first and then inserts lets two callers win: `entry().or_insert()` of one cache did so in
/// one of 176 races.
#[test]
fn one_of_many_concurrent_claims_wins() {
    const THREADS: usize = 8;
    let store = MemoryStore::default();
    let barrier = Barrier::new(THREADS);
    let rounds = 0..2_000;
    let wins: usize = std::thread::scope(|scope| {
        let race = || {
            let race = || {
                rounds
                    .clone()
                    .filter(|round| {
                        barrier.wait();
                        matches!(store.0.claim(&claim(round)), Claimed::Fresh { .. })
                    })
                    .count()
            };
            scope.spawn(race)
        };
        let racers: Vec<_> = std::iter::repeat_with(race).take(THREADS).collect();
        racers
            .into_iter()
            .map(|racer| racer.join().expect("no panic"))
            .sum()
    });
    assert_eq!(wins, rounds.len());
}

#[tokio::test(start_paused = true)]
async fn a_record_expires_exactly_at_the_end_of_its_ttl() {
    let store = MemoryStore::default();
    record(&store, "a", b"first");
    let almost = TTL.checked_sub(Duration::from_millis(1)).expect("longer");
    tokio::time::advance(almost).await;
    assert!(replays(&store, "a"));
    tokio::time::advance(Duration::from_millis(1)).await;
    assert!(store.0.look_up(&claim("a").id).is_none());
    record(&store, "a", b"second");
    assert!(replays(&store, "a"));
}

#[tokio::test(start_paused = true)]
async fn a_lease_lapses_exactly_at_its_end() {
    let store = MemoryStore::default();
    fresh(&store, &claim("a"));
    let tick = Duration::from_millis(1);
    tokio::time::advance(LEASE.saturating_sub(tick)).await;
    assert!(matches!(
        store.0.claim(&claim("a")),
        Claimed::InFlight { .. }
    ));
    tokio::time::advance(tick).await;
    assert!(matches!(
        store.0.claim(&claim("a")),
        Claimed::Fresh { attempt: 2, .. }
    ));
}

/// Each claim purges only a few expired records. The store must ignore the others too.
#[tokio::test(start_paused = true)]
async fn an_expired_record_is_ignored_before_it_is_purged() {
    let store = MemoryStore::default();
    for key in 0..50 {
        record(&store, key, b"first");
    }
    tokio::time::advance(TTL).await;
    for key in (0..50).rev() {
        fresh(&store, &claim(key));
    }
}

/// `forget` leaves the queue entry behind. When that entry expires, its id may have another record.
#[tokio::test(start_paused = true)]
async fn a_record_outlives_the_queue_entry_of_its_predecessor() {
    let store = MemoryStore::default();
    record(&store, "a", b"first");
    store.0.forget(&claim("a").id);
    tokio::time::advance(TTL / 2).await;
    record(&store, "a", b"second");
    tokio::time::advance(TTL / 2).await;
    fresh(&store, &claim("another"));
    assert!(replays(&store, "a"));
}

/// Both records expire at the same moment, but the new record is not the oldest of the store.
#[tokio::test(start_paused = true)]
async fn a_record_is_not_evicted_in_place_of_a_predecessor_with_a_longer_ttl() {
    let store = MemoryStore::default();
    let holder = fresh(&store, &claim("a"));
    assert_eq!(
        store.0.complete(holder, kept(b"first"), 2 * TTL),
        Settled::Done
    );
    store.0.forget(&claim("a").id);
    tokio::time::advance(TTL).await;
    record(&store, "a", b"second");
    let oldest = store.0.queue.pop_oldest().expect("the first record");
    assert!(!store.0.remove_queued(oldest));
    assert!(replays(&store, "a"));
}

#[tokio::test(start_paused = true)]
async fn expired_entries_free_their_bytes() {
    let store = MemoryStore::builder().max_bytes(50_000).build();
    for round in 0..10 {
        for key in 0..50 {
            record(&store, format_args!("{round}-{key}"), &[0; 100]);
        }
        tokio::time::advance(TTL).await;
    }
    for key in 0..100 {
        store.0.claim(&claim(key));
    }
    assert_eq!(store.0.budget.used(), 100 * claims::WEIGHT);
    tokio::time::advance(LEASE + TTL).await;
    assert!(store.0.make_room(store.0.clock.now()));
}

#[tokio::test(start_paused = true)]
async fn a_store_full_of_expired_records_accepts_new_claims() {
    let store = MemoryStore::builder().max_bytes(50_000).build();
    let mut taken = 0;
    while takes(&store, taken) {
        taken += 1;
    }
    tokio::time::advance(TTL).await;
    fresh(&store, &claim("new"));
    assert_eq!(store.evicted(), 0);
}

#[tokio::test(start_paused = true)]
async fn claims_past_their_retention_free_their_bytes() {
    let store = MemoryStore::builder().max_bytes(50_000).build();
    let mut taken_over = fresh(&store, &claim("taken over"));
    for key in 0.. {
        if matches!(store.0.claim(&claim(key)), Claimed::Full) {
            break;
        }
    }
    for _ in 0..3 {
        assert_eq!(store.0.abandon(taken_over), Settled::Done);
        taken_over = fresh(&store, &claim("taken over"));
    }
    tokio::time::advance(LEASE + TTL).await;
    fresh(&store, &claim("new"));
    assert_eq!(store.0.shards.claims(), 1);
    assert_eq!(store.0.budget.used(), claims::WEIGHT);
    // The claim is gone, but the next fence of its id is still higher.
    let again = fresh(&store, &claim("taken over"));
    assert!(again.fence > taken_over.fence);
}

/// The store must remember claims for their whole retention.
#[tokio::test(start_paused = true)]
async fn claims_within_their_retention_keep_their_bytes() {
    let store = MemoryStore::builder().max_bytes(50_000).build();
    for key in 0.. {
        if matches!(store.0.claim(&claim(key)), Claimed::Full) {
            break;
        }
    }
    tokio::time::advance(TTL + LEASE.saturating_sub(Duration::from_millis(1))).await;
    assert!(matches!(store.0.claim(&claim("new")), Claimed::Full));
}

/// Each scan takes the lock of every shard, and needs 24 ms for one million claims.
#[tokio::test(start_paused = true)]
async fn a_full_store_walks_through_its_claims_at_most_once_a_second() {
    let store = MemoryStore::builder().max_bytes(2 * claims::WEIGHT).build();
    let is_full = |key: &str| matches!(store.0.claim(&claim(key)), Claimed::Full);
    fresh(&store, &claim("a"));
    fresh(&store, &claim("b"));
    tokio::time::advance(TTL + LEASE.saturating_sub(Duration::from_millis(1))).await;
    assert!(is_full("c"), "both claims are still remembered");
    tokio::time::advance(Duration::from_millis(999)).await;
    assert!(is_full("c"), "the last scan was less than a second ago");
    tokio::time::advance(Duration::from_millis(1)).await;
    assert!(!is_full("c"));
    assert_eq!(store.0.shards.claims(), 1);
    assert_eq!(store.0.budget.used(), claims::WEIGHT);
}

/// An operator may choose another `ttl` for each record.
#[tokio::test(start_paused = true)]
async fn the_queue_of_an_unused_ttl_is_removed() {
    let store = MemoryStore::default();
    let ttl = |number: u32| Duration::from_secs(1) * number;
    for number in 1..=40_u32 {
        let holder = fresh(&store, &claim(number));
        let ttl = ttl(number.div_ceil(2));
        assert_eq!(store.0.complete(holder, kept(b"{}"), ttl), Settled::Done);
    }
    assert_eq!(store.0.queue.queues(), 20);
    tokio::time::advance(ttl(10)).await;
    while store.0.purge(store.0.clock.now()) {}
    assert_eq!(store.0.queue.queues(), 10);
    while store.0.queue.pop_oldest().is_some() {}
    assert_eq!(store.0.queue.queues(), 0);
}

#[tokio::test(start_paused = true)]
async fn durations_are_limited_to_100_years() {
    let store = MemoryStore::default();
    let mut forever = claim("k");
    (forever.lease, forever.retention) = (Duration::MAX, Duration::MAX);
    let holder = fresh(&store, &forever);
    assert_eq!(store.0.renew(holder, Duration::MAX), Settled::Done);
    assert_eq!(store.0.abandon(holder), Settled::Done);
    let century = Duration::from_secs(100 * 365 * 24 * 3600);
    let entry = store.0.look_up(&holder.id);
    assert!(matches!(entry, Some(Entry::Unknown { retained_for, .. }) if retained_for == century));

    // A panic here would lose the claim, and the handler would run again for this key.
    let resolved = store
        .0
        .resolve(holder.id, holder.fence, kept(b"{}"), Duration::MAX);
    assert_eq!(resolved, Settled::Done);
    let entry = store.0.look_up(&holder.id);
    assert!(matches!(entry, Some(Entry::Recorded { expires_in, .. }) if expires_in == century));
    let holder = fresh(&store, &claim("another"));
    let completed = store.0.complete(holder, kept(b"{}"), Duration::MAX);
    assert_eq!(completed, Settled::Done);
    for id in [claim("k").id, claim("another").id] {
        assert!(store.0.forget(&id));
    }
    assert_eq!(store.0.budget.used(), 0);
}

#[tokio::test(start_paused = true)]
async fn operators_do_not_see_expired_entries() {
    let store = MemoryStore::default();
    let held = fresh(&store, &claim("claimed"));
    record(&store, "recorded", b"{}");
    let recorded = claim("recorded").id;
    tokio::time::advance(LEASE).await;
    assert!(matches!(
        store.0.look_up(&held.id),
        Some(Entry::Unknown { .. })
    ));
    tokio::time::advance(TTL.saturating_sub(LEASE)).await;
    assert!(store.0.look_up(&recorded).is_none());
    assert!(!store.0.forget(&recorded));
    tokio::time::advance(LEASE).await;
    assert!(store.0.look_up(&held.id).is_none());
    let resolved = store.0.resolve(held.id, held.fence, kept(b"{}"), TTL);
    assert_eq!(resolved, Settled::Lost);
    assert_eq!(store.0.complete(held, kept(b"{}"), TTL), Settled::Lost);
    assert!(!store.0.forget(&held.id));
}

#[test]
fn ended_claims_leave_the_map_and_the_budget_empty() {
    let store = MemoryStore::default();
    for key in 0..1_000 {
        let holder = fresh(&store, &claim(key));
        let _ = match key % 3 {
            0 => store.0.release(holder),
            1 => store.0.complete(holder, kept(b"{}"), TTL),
            _ => store.0.abandon(holder),
        };
        assert_eq!(store.0.forget(&holder.id), key % 3 != 0);
    }
    assert_eq!(store.0.shards.claims(), 0);
    assert_eq!(store.0.budget.used(), 0);
}

#[tokio::test(start_paused = true)]
async fn release_complete_and_abandon_wake_a_waiter() {
    let store = MemoryStore::default();
    let ends: [fn(&Inner, Holder) -> Settled; 3] = [
        |store, holder| store.release(holder),
        |store, holder| store.complete(holder, kept(b"{}"), TTL),
        |store, holder| store.abandon(holder),
    ];
    for (key, end) in ends.into_iter().enumerate() {
        let holder = fresh(&store, &claim(key));
        let mut waiting = claim(key);
        waiting.wait = true;
        let Claimed::InFlight {
            changed: Some(changed),
            ..
        } = store.0.claim(&waiting)
        else {
            panic!("expected a claim in flight");
        };
        // The claim ends before the waiter waits. The waiter must still be woken.
        assert_eq!(end(&store.0, holder), Settled::Done);
        let woken = tokio::time::timeout(LEASE, changed.wait()).await;
        assert!(woken.is_ok(), "the waiter was not woken");
    }
}

#[test]
fn the_fence_grows_after_every_kind_of_end() {
    let store = MemoryStore::default();
    let mut last = 0;
    for round in 0..30 {
        let holder = fresh(&store, &claim("a"));
        assert!(holder.fence > last, "{} after {last}", holder.fence);
        last = holder.fence;
        let ended = match round % 4 {
            0 | 3 => store.0.abandon(holder),
            1 => store.0.release(holder),
            _ => store.0.complete(holder, kept(b"{}"), TTL),
        };
        assert_eq!(ended, Settled::Done);
        if round % 4 == 3 {
            let (id, fence) = (holder.id, holder.fence);
            let resolved = store.0.resolve(id, fence, kept(b"{}"), TTL);
            assert_eq!(resolved, Settled::Done);
        }
        if round % 4 >= 2 {
            assert!(store.0.forget(&holder.id));
        }
    }
}

/// The error could only happen between reading the clock and taking the lock, so it appears by
/// chance: in most runs within some hundred claims.
#[test]
fn a_lapsed_lease_stays_lapsed_when_its_holder_abandons_it() {
    const ROUNDS: usize = 20_000;
    let store = MemoryStore::default();
    let mut lapses = claim("k");
    lapses.lease = Duration::ZERO;
    let holder = fresh(&store, &lapses);
    let mut hold = claim("k");
    hold.on_unknown = OnUnknown::Hold;
    let abandoned = AtomicUsize::new(0);
    let mut in_flight = 0;
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while abandoned.fetch_add(1, Ordering::Relaxed) < ROUNDS {
                // Other tests check the result. A panic here would make the other thread wait
                // forever.
                let _ = store.0.abandon(holder);
            }
        });
        while abandoned.load(Ordering::Relaxed) < ROUNDS {
            let claimed = store.0.claim(&hold);
            let seen = store.0.look_up(&hold.id);
            in_flight += usize::from(!matches!(claimed, Claimed::Unknown { .. }));
            in_flight += usize::from(!matches!(seen, Some(Entry::Unknown { .. })));
        }
    });
    assert_eq!(in_flight, 0);
}

/// Claims of one scope that has a share.
fn limited(scope: u8, key: u8) -> Claim {
    let mut id = [key; 32];
    id[..16].fill(scope);
    let mut claim = Claim::new(RecordId::from_bytes(id), FINGERPRINT, LEASE, TTL);
    claim.is_global = false;
    claim
}

#[test]
fn a_scope_gets_no_claim_beyond_its_share() {
    let store = MemoryStore::builder()
        .max_bytes(8 * claims::WEIGHT)
        .max_share(0.25)
        .build();
    let first = fresh(&store, &limited(1, 1));
    fresh(&store, &limited(1, 2));
    let refused = store.0.claim(&limited(1, 3));
    assert!(matches!(refused, Claimed::OverShare), "{refused:?}");
    // Others have room, and so have keys that the scope has already.
    fresh(&store, &limited(2, 3));
    let repeated = store.0.claim(&limited(1, 2));
    assert!(matches!(repeated, Claimed::InFlight { .. }), "{repeated:?}");
    assert_eq!(store.0.release(first), Settled::Done);
    fresh(&store, &limited(1, 3));
    // A full store is full for everybody.
    for key in 0..5 {
        fresh(&store, &claim(key));
    }
    assert!(matches!(store.0.claim(&limited(3, 1)), Claimed::Full));
}

/// However an entry leaves the store, its bytes are subtracted, and an unused scope leaves the table of scopes.
#[tokio::test(start_paused = true)]
async fn ended_entries_free_their_share() {
    let store = MemoryStore::default();
    let ends: [fn(&Inner, Holder); 5] = [
        |store, holder| assert_eq!(store.release(holder), Settled::Done),
        |store, holder| assert!(store.forget(&holder.id)),
        |store, holder| assert_eq!(store.forget_scope(holder.id.scope_id()), 1),
        |store, holder| {
            assert_eq!(store.complete(holder, kept(b"{}"), TTL), Settled::Done);
            assert!(store.forget(&holder.id));
        },
        |store, holder| {
            assert_eq!(store.abandon(holder), Settled::Done);
            let resolved = store.resolve(holder.id, holder.fence, kept(b"{}"), TTL);
            assert_eq!(resolved, Settled::Done);
            assert!(store.forget(&holder.id));
        },
    ];
    for (key, end) in (0..).zip(ends) {
        let holder = fresh(&store, &limited(1, key));
        assert_eq!(store.0.budget.scopes(), 1);
        end(&store.0, holder);
        assert_eq!(
            (store.0.budget.scopes(), store.0.budget.used()),
            (0, 0),
            "{key}"
        );
    }
    // A takeover, and a record that expires and is purged.
    let mut lapsed = limited(1, 1);
    lapsed.lease = Duration::ZERO;
    fresh(&store, &lapsed);
    let holder = fresh(&store, &limited(1, 1));
    let record = store.0.complete(holder, kept(b"{}"), Duration::ZERO);
    assert_eq!(record, Settled::Done);
    let other = fresh(&store, &limited(2, 1));
    assert_eq!(store.0.release(other), Settled::Done);
    assert_eq!((store.0.budget.scopes(), store.0.budget.used()), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn expired_entries_of_a_scope_make_room_within_its_share() {
    let store = MemoryStore::builder()
        .max_bytes(8 * claims::WEIGHT)
        .max_share(0.25)
        .build();
    for key in 0..2 {
        let mut short = limited(1, key);
        (short.lease, short.retention) = (Duration::ZERO, Duration::ZERO);
        fresh(&store, &short);
    }
    fresh(&store, &limited(1, 3));
}

#[test]
fn a_label_counts_against_the_budget() {
    let store = MemoryStore::default();
    let mut labelled = claim("k");
    labelled.origin = Origin::new("pay").with_label(Some("x".repeat(200).into()));
    fresh(&store, &labelled);
    assert!(store.0.budget.used() >= claims::WEIGHT + 200);
    store.0.forget(&labelled.id);
    assert_eq!(store.0.budget.used(), 0);
}

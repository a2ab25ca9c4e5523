//! The contract suite finds wrong stores, and names the rule that each store breaks.
#![cfg(feature = "testing")]

use test_support::wrong;

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use idem_runtime::store::{
    Claim, Claimed, Cursor, Holder, MemoryStore, Origin, Page, Query, Record, Store, StoreFuture,
};
use idem_runtime::testing::Contract;
use idem_runtime::{RecordId, ScopeId};

use wrong::table::{Flaw, FlawedStore};
use wrong::{GetThenSet, Mistake, NoFence, Wrong};

async fn broken_rule(contract: Contract) -> u8 {
    let violation = contract.rounds(20).check().await;
    violation.expect_err("the store is wrong").rule()
}

/// Runs the suite on one thread with a paused clock, which is enough to find the flaw.
async fn breaks(flaw: Flaw, rule: u8) {
    let store = FlawedStore::with(flaw);
    assert_eq!(broken_rule(Contract::of(store)).await, rule);
}

#[tokio::test(start_paused = true)]
async fn a_renewal_that_leaves_the_expiry_breaks_rule_3() {
    breaks(Flaw::RenewKeepsExpiry, 3).await;
}

#[tokio::test(start_paused = true)]
async fn a_retention_counted_from_the_claim_breaks_rule_3() {
    breaks(Flaw::RetentionFromClaim, 3).await;
}

#[tokio::test(start_paused = true)]
async fn a_record_found_by_its_fingerprint_breaks_rule_4() {
    breaks(Flaw::RecordByFingerprint, 4).await;
}

#[tokio::test(start_paused = true)]
async fn an_expiry_that_is_always_the_whole_ttl_breaks_rule_4() {
    breaks(Flaw::FullExpiresIn, 4).await;
}

#[tokio::test(start_paused = true)]
async fn a_claim_that_restarts_a_retention_breaks_rule_3() {
    breaks(Flaw::ClaimRestartsRetention, 3).await;
}

#[tokio::test(start_paused = true)]
async fn a_look_up_that_restarts_a_retention_breaks_rule_10() {
    breaks(Flaw::LookUpRestartsRetention, 10).await;
}

#[tokio::test(start_paused = true)]
async fn a_look_up_that_prolongs_a_lease_breaks_rule_10() {
    breaks(Flaw::LookUpProlongsLease, 10).await;
}

#[tokio::test(start_paused = true)]
async fn a_look_up_without_the_attempt_breaks_rule_10() {
    breaks(Flaw::LookUpSaysFirstAttempt, 10).await;
}

#[tokio::test(start_paused = true)]
async fn a_look_up_without_the_lease_breaks_rule_10() {
    breaks(Flaw::LookUpSaysNoLeaseLeft, 10).await;
}

#[tokio::test(start_paused = true)]
async fn a_forget_that_finds_an_expired_entry_breaks_rule_10() {
    breaks(Flaw::ForgetsExpired, 10).await;
}

#[tokio::test(start_paused = true)]
async fn a_resolve_with_an_earlier_fence_breaks_rule_10() {
    breaks(Flaw::ResolvesLowerFences, 10).await;
}

#[tokio::test(start_paused = true)]
async fn a_resolve_past_the_retention_breaks_rule_10() {
    breaks(Flaw::ResolvesPastRetention, 10).await;
}

#[tokio::test(start_paused = true)]
async fn a_resolve_that_ignores_its_ttl_breaks_rule_10() {
    breaks(Flaw::ResolveIgnoresTtl, 10).await;
}

#[tokio::test(start_paused = true)]
async fn a_released_takeover_that_stays_unknown_breaks_rule_2() {
    breaks(Flaw::ReleasedTakeoverIsUnknown, 2).await;
}

#[tokio::test(start_paused = true)]
async fn a_takeover_with_the_old_lease_breaks_rule_3() {
    breaks(Flaw::TakeoverKeepsLease, 3).await;
}

#[tokio::test(start_paused = true)]
async fn a_takeover_with_the_old_retention_breaks_rule_3() {
    breaks(Flaw::TakeoverKeepsRetention, 3).await;
}

#[tokio::test(start_paused = true)]
async fn a_panic_on_a_claim_that_waits_breaks_rule_1() {
    breaks(Flaw::PanicsOnWait, 1).await;
}

#[tokio::test(start_paused = true)]
async fn a_lease_without_any_time_left_breaks_rule_1() {
    breaks(Flaw::NanosecondLeft, 1).await;
}

#[tokio::test(start_paused = true)]
async fn a_fence_reused_after_its_retention_breaks_rule_7() {
    breaks(Flaw::FenceStandsPastRetention, 7).await;
}

#[tokio::test(start_paused = true)]
async fn an_own_claim_that_outlives_its_lease_breaks_rule_8() {
    breaks(Flaw::OwnClaimAfterLease, 8).await;
}

/// Without a flaw the store is correct, so the suite found exactly the flaw in each other test.
#[tokio::test(start_paused = true)]
async fn a_store_without_a_flaw_keeps_every_rule() {
    let store = FlawedStore::with(Flaw::None);
    let other = store.of_another_process();
    Contract::of_two(store, other).rounds(5).assert().await;
}

/// The suite finds the gap of each flaw when two threads meet in the gap, however short it is.
#[tokio::test(flavor = "multi_thread")]
async fn gaps_between_read_and_write_break_rule_1() {
    for flaw in [Flaw::MicrosecondGap, Flaw::YieldingGap, Flaw::TakeoverGap] {
        let contract = Contract::of(FlawedStore::with(flaw));
        let found = contract.check().await;
        let Err(violation) = found else {
            panic!("{flaw:?} was not found");
        };
        assert_eq!(violation.rule(), 1, "{flaw:?}: {violation}");
    }
}

/// With a single process, the store keeps the contract.
#[tokio::test(start_paused = true)]
async fn two_handles_expose_state_that_only_one_process_has() {
    for (flaw, rule) in [
        (Flaw::LockOfProcess, 1),
        (Flaw::FencesOfProcess, 7),
        (Flaw::CacheOfProcess, 10),
    ] {
        let store = FlawedStore::with(flaw);
        let contract = Contract::of(store).rounds(5);
        contract
            .check()
            .await
            .expect("one process keeps every rule");

        let store = FlawedStore::with(flaw);
        let other = store.of_another_process();
        let Err(violation) = Contract::of_two(store, other).check().await else {
            panic!("{flaw:?} was not found");
        };
        assert_eq!(violation.rule(), rule, "{flaw:?}: {violation}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn get_then_set_breaks_rule_1() {
    let store = Wrong::<GetThenSet>::default();
    assert_eq!(broken_rule(Contract::of(store)).await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn no_fence_breaks_rule_2() {
    let store = Wrong::<NoFence>::default();
    assert_eq!(broken_rule(Contract::of(store)).await, 2);
}

/// Restarts a record's `ttl` whenever the record is read.
#[derive(Clone, Default)]
struct SlidingExpiry {
    ttls: Arc<Mutex<HashMap<RecordId, Duration>>>,
    // A lock that hides the steps from other claims.
    reading: Arc<tokio::sync::Mutex<()>>,
}

impl Mistake for SlidingExpiry {
    fn claim(&self, store: &MemoryStore, claim: Claim) -> StoreFuture<Claimed> {
        let (mistake, store) = (self.clone(), store.clone());
        StoreFuture::new(async move {
            let _reading = mistake.reading.lock().await;
            let claimed = store.claim(claim.clone()).await?;
            let ttl = mistake
                .ttls
                .lock()
                .expect("no panic")
                .get(&claim.id)
                .copied();
            if let (Claimed::Recorded { record, .. }, Some(ttl)) = (&claimed, ttl) {
                let (id, owner) = (claim.id, claim.owner);
                store.forget(id).await?;
                if let Claimed::Fresh { fence, .. } = store.claim(claim).await? {
                    let holder = Holder { id, owner, fence };
                    let _ = store.complete(holder, record.clone(), ttl).await?;
                }
            }
            Ok(claimed)
        })
    }

    fn completed(&self, id: RecordId, _record: &Record, ttl: Duration) {
        let mut ttls = self.ttls.lock().expect("no panic");
        ttls.entry(id).or_insert(ttl);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn sliding_expiry_breaks_rule_4() {
    let store = Wrong::<SlidingExpiry>::default();
    assert_eq!(broken_rule(Contract::of(store)).await, 4);
}

/// Treats an unreadable entry as missing.
#[derive(Clone, Default)]
struct UnreadableIsAMiss(Arc<Mutex<HashSet<RecordId>>>);

impl Mistake for UnreadableIsAMiss {
    fn claim(&self, store: &MemoryStore, claim: Claim) -> StoreFuture<Claimed> {
        let is_damaged = self.0.lock().expect("no panic").remove(&claim.id);
        let store = store.clone();
        StoreFuture::new(async move {
            if is_damaged {
                store.forget(claim.id).await?;
            }
            store.claim(claim).await
        })
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn unreadable_as_a_miss_breaks_rule_6() {
    let store = Wrong::<UnreadableIsAMiss>::default();
    let damaged = store.mistake.0.clone();
    let contract = Contract::of(store).damage_with(move |id| {
        damaged.lock().expect("no panic").insert(id);
        std::future::ready(())
    });
    assert_eq!(broken_rule(contract).await, 6);
}

/// A listing repeats the last record of a page on the next page.
#[derive(Clone, Default)]
struct ListsTwice;

impl Mistake for ListsTwice {
    fn list(&self, store: &MemoryStore, query: Query) -> StoreFuture<Page> {
        store.list(query).map(|mut page| {
            if page.next.is_some() && page.entries.len() > 1 {
                page.entries.swap_remove(0);
            }
            let last = page.entries.last();
            page.next = page.next.and(last.map(|last| before(last.id)));
            page
        })
    }
}

/// The place before a record.
fn before(id: RecordId) -> Cursor {
    let mut bytes = *id.as_bytes();
    bytes[31] = bytes[31].wrapping_sub(1);
    Cursor::from_bytes(bytes)
}

#[tokio::test(start_paused = true)]
async fn a_record_on_two_pages_breaks_rule_10() {
    let store = Wrong::<ListsTwice>::default();
    assert_eq!(broken_rule(Contract::of(store)).await, 10);
}

/// A listing leaves out one record of each page that is full.
#[derive(Clone, Default)]
struct ListsTooFew;

impl Mistake for ListsTooFew {
    fn list(&self, store: &MemoryStore, query: Query) -> StoreFuture<Page> {
        store.list(query).map(|mut page| {
            if page.next.is_some() && page.entries.len() > 1 {
                page.entries.remove(0);
            }
            page
        })
    }
}

#[tokio::test(start_paused = true)]
async fn a_record_on_no_page_breaks_rule_10() {
    let store = Wrong::<ListsTooFew>::default();
    assert_eq!(broken_rule(Contract::of(store)).await, 10);
}

/// Forgets what is neither of the scope nor before it.
#[derive(Clone, Default)]
struct ForgetsTheNeighbour;

impl Mistake for ForgetsTheNeighbour {
    fn forget_scope(&self, store: &MemoryStore, scope: ScopeId) -> StoreFuture<u64> {
        let next = u128::from_be_bytes(*scope.as_bytes()).wrapping_add(1);
        let next = ScopeId::from_bytes(next.to_be_bytes());
        let forgotten = store.forget_scope(scope);
        let store = store.clone();
        StoreFuture::new(async move {
            store.forget_scope(next).await?;
            forgotten.await
        })
    }
}

#[tokio::test(start_paused = true)]
async fn forgetting_the_next_scope_breaks_rule_10() {
    let store = Wrong::<ForgetsTheNeighbour>::default();
    assert_eq!(broken_rule(Contract::of(store)).await, 10);
}

/// Lists records of other endpoints.
#[derive(Clone, Default)]
struct IgnoresEndpoint;

impl Mistake for IgnoresEndpoint {
    fn list(&self, store: &MemoryStore, mut query: Query) -> StoreFuture<Page> {
        query.endpoint = None;
        store.list(query)
    }
}

#[tokio::test(start_paused = true)]
async fn a_filter_without_effect_breaks_rule_10() {
    let store = Wrong::<IgnoresEndpoint>::default();
    assert_eq!(broken_rule(Contract::of(store)).await, 10);
}

/// Forgets where a record comes from when a claim is repeated.
#[derive(Clone, Default)]
struct LosesOrigin;

impl Mistake for LosesOrigin {
    fn claim(&self, store: &MemoryStore, mut claim: Claim) -> StoreFuture<Claimed> {
        claim.origin = Origin::default();
        store.claim(claim)
    }
}

#[tokio::test(start_paused = true)]
async fn a_lost_origin_breaks_rule_10() {
    let store = Wrong::<LosesOrigin>::default();
    assert_eq!(broken_rule(Contract::of(store)).await, 10);
}

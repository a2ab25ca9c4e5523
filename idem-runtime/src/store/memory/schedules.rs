//! Tests claims, waiters and the budget under thousands of thread schedules. `.ci/schedules` runs
//! them.
//!
//! At every lock and counter of the store, shuttle may switch to another thread. When nobody wakes
//! a waiter, shuttle reports a deadlock. `IDEM_SEED=7` chooses other schedules, and
//! `IDEM_SCHEDULES=1000000` chooses their number.

use shuttle::scheduler::{PctScheduler, RandomScheduler};
use shuttle::{Config, Runner, future, thread};

use super::tests::{LEASE, TTL, claim, fresh, kept};
use super::*;

fn number(variable: &str, default: u64) -> u64 {
    std::env::var(variable).map_or(default, |value| value.parse().expect("a number"))
}

/// Tries random schedules first, and then schedules with few preemptions, which find deep bugs more
/// often.
fn explore(threads_meet: fn()) {
    let (seed, schedules) = (number("IDEM_SEED", 1), number("IDEM_SCHEDULES", 300));
    println!("IDEM_SEED={seed} IDEM_SCHEDULES={schedules}");
    let schedules = usize::try_from(schedules).expect("fits");
    let config = Config::new();
    let random = RandomScheduler::new_from_seed(seed, schedules);
    Runner::new(random, config.clone()).run(threads_meet);
    let preempting = PctScheduler::new_from_seed(seed, 3, schedules);
    Runner::new(preempting, config).run(threads_meet);
}

fn held(store: &MemoryStore, claim: &Claim) -> Option<Holder> {
    match store.0.claim(claim) {
        Claimed::Fresh { fence, .. } => Some(Holder {
            id: claim.id,
            owner: claim.owner,
            fence,
        }),
        Claimed::InFlight { .. } | Claimed::Recorded { .. } => None,
        other => panic!("{other:?}"),
    }
}

/// Four threads claim at once. The winner completes, and no other thread wins.
#[test]
fn one_of_several_concurrent_claims_completes() {
    explore(|| {
        let store = MemoryStore::default();
        let threads: Vec<_> = (0..4)
            .map(|_| {
                let store = store.clone();
                thread::spawn(move || {
                    let Some(holder) = held(&store, &claim("k")) else {
                        return 0;
                    };
                    assert_eq!(store.0.complete(holder, kept(b"{}"), TTL), Settled::Done);
                    1
                })
            })
            .collect();
        let won: usize = threads
            .into_iter()
            .map(|thread| thread.join().expect("no panic"))
            .sum();
        assert_eq!(won, 1);
    });
}

/// However the claim ends, its waiters wake. Then one of them gets the claim, or all of them see
/// its record.
#[test]
fn every_waiter_wakes_when_the_claim_ends() {
    explore(|| {
        let ends: [fn(&Inner, Holder) -> Settled; 3] = [
            |store, holder| store.release(holder),
            |store, holder| store.complete(holder, kept(b"{}"), TTL),
            |store, holder| store.abandon(holder),
        ];
        for (key, end) in ends.into_iter().enumerate() {
            let store = MemoryStore::default();
            let holder = fresh(&store, &claim(key));
            let waiters: Vec<_> = (0..2)
                .map(|_| {
                    let (store, mut waiting) = (store.clone(), claim(key));
                    waiting.wait = true;
                    thread::spawn(move || {
                        loop {
                            match store.0.claim(&waiting) {
                                // This claim read the clock before the old claim ended. A real
                                // caller would wait no longer than `lease_left`.
                                Claimed::InFlight { lease_left, .. } if lease_left < LEASE / 2 => {}
                                Claimed::InFlight { changed, .. } => {
                                    let changed = changed.expect("the memory store wakes waiters");
                                    future::block_on(changed.wait());
                                }
                                Claimed::Fresh { fence, .. } => {
                                    let (id, owner) = (waiting.id, waiting.owner);
                                    let heir = Holder { id, owner, fence };
                                    assert!(fence > holder.fence);
                                    let done = store.0.complete(heir, kept(b"heir"), TTL);
                                    return assert_eq!(done, Settled::Done);
                                }
                                Claimed::Recorded { .. } => return,
                                other => panic!("{other:?}"),
                            }
                        }
                    })
                })
                .collect();
            assert_eq!(end(&store.0, holder), Settled::Done);
            for waiter in waiters {
                waiter.join().expect("no panic");
            }
        }
    });
}

/// The old holder acts at the same time as its successor, and changes nothing.
#[test]
fn an_overtaken_holder_changes_nothing() {
    explore(|| {
        let store = MemoryStore::default();
        let old = fresh(&store, &claim("k"));
        assert_eq!(store.0.abandon(old), Settled::Done);
        let heir = {
            let store = store.clone();
            thread::spawn(move || {
                let heir = std::iter::repeat_with(|| held(&store, &claim("k")))
                    .find_map(|holder| holder)
                    .expect("the claim is lapsed or recorded soon");
                assert_eq!(store.0.renew(heir, LEASE), Settled::Done);
                assert_eq!(store.0.complete(heir, kept(b"heir"), TTL), Settled::Done);
            })
        };
        let late = {
            let store = store.clone();
            thread::spawn(move || {
                // This succeeds only while nobody has taken the claim over.
                let _ = store.0.renew(old, Duration::ZERO);
                store.0.look_up(&old.id).is_none()
            })
        };
        heir.join().expect("the heir settles");
        let was_gone = late.join().expect("no panic");
        assert!(
            !was_gone,
            "an entry that is unknown, in flight or recorded is never missing"
        );
        assert_eq!(store.0.complete(old, kept(b"late"), TTL), Settled::Lost);
        assert_eq!(store.0.release(old), Settled::Lost);
        let entry = store.0.look_up(&old.id);
        assert!(matches!(entry, Some(Entry::Recorded { record, .. }) if record == kept(b"heir")));
    });
}

/// Claims, records, evictions and `forget` run at once. The budget equals the sum of the stored
/// entries.
#[test]
fn the_budget_counts_exactly_the_stored_entries() {
    explore(|| {
        let store = MemoryStore::builder()
            .max_bytes(3_000)
            .on_full(OnFull::EvictOldest)
            .build();
        let in_flight = fresh(&store, &claim("in flight"));
        let threads: Vec<_> = (0..3)
            .map(|thread| {
                let store = store.clone();
                thread::spawn(move || {
                    for round in 0..3 {
                        let asked = claim(format_args!("{thread} {round}"));
                        let Claimed::Fresh { fence, .. } = store.0.claim(&asked) else {
                            continue;
                        };
                        let (id, owner) = (asked.id, asked.owner);
                        let holder = Holder { id, owner, fence };
                        assert_eq!(
                            store.0.complete(holder, kept(&[0; 500]), TTL),
                            Settled::Done
                        );
                        if round == 1 {
                            store.0.forget(&id);
                        }
                    }
                })
            })
            .collect();
        for thread in threads {
            thread.join().expect("no panic");
        }
        assert_eq!(store.0.complete(in_flight, kept(b""), TTL), Settled::Done);
        for thread in 0..3 {
            for round in 0..3 {
                store.0.forget(&claim(format_args!("{thread} {round}")).id);
            }
        }
        store.0.forget(&in_flight.id);
        assert_eq!((store.0.shards.claims(), store.0.budget.used()), (0, 0));
    });
}

/// While an expired record is being purged, its key gets a new record.
#[test]
fn purging_an_expired_record_keeps_its_successor() {
    explore(|| {
        let store = MemoryStore::default();
        let old = fresh(&store, &claim("k"));
        assert_eq!(
            store.0.complete(old, kept(b"old"), Duration::ZERO),
            Settled::Done
        );
        let clearing = {
            let store = store.clone();
            thread::spawn(move || drop(fresh(&store, &claim("another"))))
        };
        let new = fresh(&store, &claim("k"));
        assert_eq!(store.0.complete(new, kept(b"new"), TTL), Settled::Done);
        clearing.join().expect("no panic");
        let entry = store.0.look_up(&new.id);
        assert!(matches!(entry, Some(Entry::Recorded { record, .. }) if record == kept(b"new")));
    });
}

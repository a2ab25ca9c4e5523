//! Claims, waiters and the budget under thousands of schedules. `.ci/schedules` runs them.
//!
//! Every lock and counter of the store is a point where shuttle may let another thread go on. A waiter
//! that nobody wakes is a deadlock, which it tells. `IDEM_SEED=7` takes other schedules,
//! `IDEM_SCHEDULES=1000000` more of them.

use shuttle::scheduler::{PctScheduler, RandomScheduler};
use shuttle::{Config, Runner, future, thread};

use super::tests::{LEASE, TTL, answer, claim, fresh};
use super::*;

fn number(variable: &str, default: u64) -> u64 {
    std::env::var(variable).map_or(default, |value| value.parse().expect("a number"))
}

/// Tries random schedules, and then those with few preemptions, in which deep bugs are likelier.
fn explore(threads_meet: fn()) {
    let (seed, schedules) = (number("IDEM_SEED", 1), number("IDEM_SCHEDULES", 300));
    println!("IDEM_SEED={seed} IDEM_SCHEDULES={schedules}");
    let schedules = usize::try_from(schedules).expect("fits");
    let mut config = Config::new();
    // moka's frames are deeper than the default.
    config.stack_size = 1 << 20;
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

/// Four claim at once; who wins completes, and nobody wins again.
#[test]
fn of_those_who_claim_at_once_one_completes() {
    explore(|| {
        let store = MemoryStore::default();
        let threads: Vec<_> = (0..4)
            .map(|_| {
                let store = store.clone();
                thread::spawn(move || {
                    let Some(holder) = held(&store, &claim("k")) else {
                        return 0;
                    };
                    assert_eq!(store.0.complete(holder, answer(b"{}"), TTL), Settled::Done);
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

/// However the claim ends, its waiters go on, and then one of them has it or all see its record.
#[test]
fn no_waiter_sleeps_through_the_end_of_a_claim() {
    explore(|| {
        let ends: [fn(&Inner, Holder) -> Settled; 3] = [
            |store, holder| store.release(holder),
            |store, holder| store.complete(holder, answer(b"{}"), TTL),
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
                                // Its clock was read before the claim ended: it waits for no
                                // longer than what it is told to be left.
                                Claimed::InFlight { lease_left, .. } if lease_left < LEASE / 2 => {}
                                Claimed::InFlight { changed, .. } => {
                                    let changed = changed.expect("memory wakes those who wait");
                                    future::block_on(changed.wait());
                                }
                                Claimed::Fresh { fence, .. } => {
                                    let (id, owner) = (waiting.id, waiting.owner);
                                    let heir = Holder { id, owner, fence };
                                    assert!(fence > holder.fence);
                                    let done = store.0.complete(heir, answer(b"heir"), TTL);
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

/// A holder that was overtaken acts beside its heir, and changes nothing.
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
                    .expect("it is free soon");
                assert_eq!(store.0.renew(heir, LEASE), Settled::Done);
                assert_eq!(store.0.complete(heir, answer(b"heir"), TTL), Settled::Done);
            })
        };
        let late = {
            let store = store.clone();
            thread::spawn(move || {
                // Only where nobody has taken over yet is it still the holder.
                let _ = store.0.renew(old, Duration::ZERO);
                store.0.look_up(&old.id).is_none()
            })
        };
        heir.join().expect("the heir settles");
        let was_gone = late.join().expect("no panic");
        assert!(
            !was_gone,
            "what is unknown, in flight or recorded is never nothing"
        );
        assert_eq!(store.0.complete(old, answer(b"late"), TTL), Settled::Lost);
        assert_eq!(store.0.release(old), Settled::Lost);
        let entry = store.0.look_up(&old.id);
        assert!(matches!(entry, Some(Entry::Recorded { record, .. }) if record == answer(b"heir")));
    });
}

/// Claims, records, evictions and forgetting all at once: what is counted is what is there.
#[test]
fn the_budget_is_what_is_there() {
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
                            store.0.complete(holder, answer(&[0; 500]), TTL),
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
        assert_eq!(store.0.complete(in_flight, answer(b""), TTL), Settled::Done);
        for thread in 0..3 {
            for round in 0..3 {
                store.0.forget(&claim(format_args!("{thread} {round}")).id);
            }
        }
        store.0.forget(&in_flight.id);
        assert_eq!((store.0.claims.len(), store.0.budget.used()), (0, 0));
    });
}

/// A record has expired; while it is cleared away, its key gets a new one.
#[test]
fn a_new_record_is_not_cleared_away_for_the_old_one() {
    explore(|| {
        let store = MemoryStore::default();
        let old = fresh(&store, &claim("k"));
        assert_eq!(
            store.0.complete(old, answer(b"old"), Duration::ZERO),
            Settled::Done
        );
        let clearing = {
            let store = store.clone();
            thread::spawn(move || drop(fresh(&store, &claim("another"))))
        };
        let new = fresh(&store, &claim("k"));
        assert_eq!(store.0.complete(new, answer(b"new"), TTL), Settled::Done);
        clearing.join().expect("no panic");
        let entry = store.0.look_up(&new.id);
        assert!(matches!(entry, Some(Entry::Recorded { record, .. }) if record == answer(b"new")));
    });
}

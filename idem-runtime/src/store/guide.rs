//! How to write a store.
//!
//! A store needs an engine that can read and change the entry under one record id in one atomic
//! step. A lock around a map can do that. So can a script in Redis, a statement in SQL, and a
//! conditional write in DynamoDB or etcd. An engine that offers only get and set cannot, however
//! quickly the set follows the get.
//!
//! 1. Under each [`RecordId`](crate::RecordId) there is nothing, a claim or a record. A claim has a
//!    fingerprint, an owner, a fence, an attempt number, the end of its lease, and a retention. The
//!    retention says how long the store remembers the claim after its lease has lapsed. A record is
//!    [`Record::as_bytes`](super::Record::as_bytes).
//! 2. *Every* transition treats an expired entry as absent, by the engine's own clock. Deleting
//!    expired entries only saves space, and may happen later.
//! 3. [`claim`](super::Store::claim) checks these cases in this order. A record is replayed. A
//!    claim whose lease holds is in flight, or `Fresh` again when the caller is its owner. A lapsed
//!    claim is taken over or reported as unknown. With no entry, the claim is `Fresh`.
//!    [`Claimed`](super::Claimed) lists the results.
//! 4. The other transitions compare owner *and* fence, and nothing else. In particular, a lapsed
//!    lease does not matter as long as nobody took the claim over.
//! 5. Take fences from one counter that never goes back, or from the engine's clock. Then fences
//!    grow even when no entry is left under an id.
//! 6. When the engine reports "already exists", that is a result and not an error. An error of the
//!    engine is never a result. When the store is unsure, return an error: the engine of this
//!    library claims again with the same owner, and rule 8 of [`Store`](super::Store) tells it
//!    whether it holds the claim.
//! 7. Store a version number with each entry. For an entry that you cannot decode, return
//!    [`StoreError::Undecodable`](super::StoreError::Undecodable) and leave the entry in place.
//! 8. Run the suite of the feature `testing` against the store, on a multi-threaded runtime and
//!    with the real engine. Test a store that several processes share with two handles
//!    (`Contract::of_two`), each with its own connections. With one handle the suite cannot notice
//!    that a process locks, counts or caches only for itself.
//!
//! # A whole store
//!
//! Each method of this store has its result at once, so nothing is awaited. A store that has to
//! wait passes a future to [`StoreFuture::new`](super::StoreFuture::new). That future owns
//! everything it needs.
//!
#![cfg_attr(feature = "testing", doc = "```no_run")]
#![cfg_attr(not(feature = "testing"), doc = "```ignore")]
#![doc = include_str!("../../examples/own_store.rs")]
//! # extern crate idem_runtime as axum_idem;
//! ```

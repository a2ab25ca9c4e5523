//! How to write a store.
//!
//! A store is an engine that can do one thing as a whole: look at what stands under one record id,
//! and change it. A lock around a map can; so can a script in Redis, a statement in SQL, a
//! conditional write in DynamoDB or etcd. What only offers get and set cannot, however quickly the
//! one follows the other.
//!
//! 1. Under each [`RecordId`](crate::RecordId) there is nothing, a claim or a record. A claim has
//!    the fingerprint, owner, fence and attempt of who made it, the end of its lease, and for how
//!    long it is remembered after that. A record is [`Record::as_bytes`](super::Record::as_bytes).
//! 2. Whatever is past its time counts as nothing in *every* transition, by the engine's own clock.
//!    Clearing it away is hygiene, and can be late.
//! 3. [`claim`](super::Store::claim) decides in the order of [`Claimed`](super::Claimed): a record
//!    is replayed; a claim whose lease holds is in flight, or the claimer's own; one that lapsed is
//!    taken over or unknown; and only nothing is free.
//! 4. The other transitions compare owner *and* fence, and nothing else counts: not that the lease
//!    has lapsed, as long as nobody took over.
//! 5. Give fences from one counter that never goes back, or from the engine's clock, so that they
//!    grow also where nothing is left of an id.
//! 6. An engine's "already exists" is an answer, never an error; and its error is never an answer.
//!    When in doubt, give an error: the engine here asks again with the same owner, and rule 8 tells
//!    it whether it has won.
//! 7. Keep a version with what you store. What you cannot read is
//!    [`StoreError::Undecodable`](super::StoreError::Undecodable), and stays.
//! 8. Put the store through the suite of the feature `testing`, on a multi-threaded runtime and
//!    against the real engine. A store that processes share goes through it with two handles
//!    (`Contract::of_two`), each with connections of its own: what a process locks, counts or caches for
//!    itself is not seen with one.
//!
//! # A whole store
//!
//! Each method answers at once, so nothing is awaited; a store that does wait gives
//! [`StoreFuture::new`](super::StoreFuture::new) a future that owns what it needs.
//!
#![cfg_attr(feature = "testing", doc = "```no_run")]
#![cfg_attr(not(feature = "testing"), doc = "```ignore")]
#![doc = include_str!("../../examples/own_store.rs")]
//! ```

//! How many bytes each scope holds, so that one caller cannot fill the store for everybody.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::hash::BuildHasherDefault;
use std::sync::PoisonError;

use super::hasher::DigestHasher;
use super::sync::{Mutex, MutexGuard};
use crate::request::scope_id::ScopeId;

const SHARDS: usize = 16;

type Shard = HashMap<ScopeId, usize, BuildHasherDefault<DigestHasher>>;

/// The bytes of each scope that holds any.
///
/// A shard is locked for one addition. A transition may hold the lock of its claim meanwhile, and never the
/// other way round.
#[derive(Debug)]
pub(super) struct Shares {
    shards: Box<[Mutex<Shard>]>,
    /// The bytes from which on a scope gets no new claim.
    limit: usize,
}

impl Shares {
    pub(super) fn new(limit: usize) -> Self {
        Self {
            shards: std::iter::repeat_with(Mutex::default)
                .take(SHARDS)
                .collect(),
            limit,
        }
    }

    /// Whether the scope may have one more claim.
    pub(super) fn has_room(&self, scope: ScopeId) -> bool {
        let shard = self.shard(scope);
        shard.get(&scope).is_none_or(|used| *used < self.limit)
    }

    pub(super) fn add(&self, scope: ScopeId, bytes: usize) {
        *self.shard(scope).entry(scope).or_default() += bytes;
    }

    pub(super) fn subtract(&self, scope: ScopeId, bytes: usize) {
        if let Entry::Occupied(mut used) = self.shard(scope).entry(scope) {
            *used.get_mut() = used.get().saturating_sub(bytes);
            if *used.get() == 0 {
                used.remove();
            }
        }
    }

    fn shard(&self, scope: ScopeId) -> MutexGuard<'_, Shard> {
        let shard = usize::from(scope.as_bytes()[0]) % SHARDS;
        // Nothing panics between two changes of a shard.
        self.shards[shard]
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        let len = |shard: &Mutex<Shard>| shard.lock().expect("no panic").len();
        self.shards.iter().map(len).sum()
    }
}

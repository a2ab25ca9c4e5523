//! How many bytes each scope holds, so that one caller cannot fill the store for everybody.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::hash::BuildHasherDefault;
use std::sync::PoisonError;

use super::sync::{Mutex, MutexGuard};
use crate::request::digest_hasher::DigestHasher;
use crate::request::scope_id::ScopeId;

const SHARDS: usize = 16;

type Shard = HashMap<ScopeId, usize, BuildHasherDefault<DigestHasher>>;

/// The bytes of each scope that holds any.
///
/// A shard is locked only while one number changes. The lock of a claim may be held at that time. The lock of a
/// claim is never taken while a shard is locked, so no deadlock is possible.
#[derive(Debug)]
pub(super) struct Shares {
    shards: Vec<Mutex<Shard>>,
    /// The bytes from which on a scope gets no new claim.
    limit: usize,
}

impl Shares {
    pub(super) fn new(limit: usize) -> Self {
        let mut shards = Vec::with_capacity(SHARDS);
        for _ in 0..SHARDS {
            shards.push(Mutex::default());
        }
        Self { shards, limit }
    }

    /// Whether the scope may have one more claim.
    pub(super) fn has_room(&self, scope: ScopeId) -> bool {
        let shard = self.shard(scope);
        shard.get(&scope).is_none_or(|used| self.allows(*used))
    }

    /// Adds the bytes of a new claim. Returns whether the scope may have the claim.
    pub(super) fn take(&self, scope: ScopeId, bytes: usize) -> bool {
        match self.shard(scope).entry(scope) {
            Entry::Occupied(used) if !self.allows(*used.get()) => false,
            Entry::Occupied(mut used) => {
                *used.get_mut() += bytes;
                true
            }
            Entry::Vacant(none) => {
                none.insert(bytes);
                true
            }
        }
    }

    /// An entry of the scope changes its size, and does not become empty.
    pub(super) fn resize(&self, scope: ScopeId, from: usize, to: usize) {
        if let Some(used) = self.shard(scope).get_mut(&scope) {
            *used = used.saturating_sub(from) + to;
        }
    }

    fn allows(&self, used: usize) -> bool {
        used < self.limit
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

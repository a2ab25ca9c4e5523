//! A store that encrypts the responses in another store.

mod form;
pub(super) mod keys;
mod nonces;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use futures_util::stream::{self, StreamExt as _, TryStreamExt as _};

use super::{
    Claim, Claimed, CommitState, DecodeError, Entry, Finding, Holder, Page, Query, Record,
    RecordStatement, Settled, State, StateKind, Stats, Store, StoreError, StoreFuture, Summary,
    TransactionKind,
};
use crate::observe::Observer;
use crate::request::record_id::RecordId;
use crate::request::scope_id::ScopeId;
use keys::Keys;

/// How many records of a page are looked up at a time.
const LOOKS: usize = 16;

/// Encrypts the responses in another store, so that a dump, a replica or a backup of that store shows none of them.
///
/// The status, the headers and the body of each response are encrypted and authenticated with XChaCha20-Poly1305 and
/// a random nonce of 192 bits. The record id, the id of the key and the fingerprint are authenticated too. A record
/// that was changed, or moved to another record id, is an error: the request gets 503, no response is replayed, and the
/// handler does not run. The entry stays in the store.
///
/// The store below still sees the record id, the fingerprint, the [`Origin`](super::Origin) with its label, the
/// times, and the length of a response, to which sealing adds 53 bytes. It can remove a record, or put back an
/// earlier record of the same id. `docs/security.md` in the repository lists what sealing protects and what it does not.
///
/// ```
/// # extern crate idem_runtime as axum_idem;
/// use axum_idem::Idempotency;
/// use axum_idem::store::{Keys, MemoryStore, Sealed};
///
/// # let key = [7; 32];
/// // In production: `Keys::from_env("IDEM_SEAL_KEYS")?` and a `RedisStore`, for example.
/// let keys = Keys::new().primary(1, key);
/// let idem = Idempotency::builder()
///     .store(Sealed::around(MemoryStore::default(), keys))
///     .build();
/// # let _ = idem;
/// ```
///
/// [`Keys`] says how to change the key without downtime.
///
/// # With a near cache
///
/// `NearCache::new(Sealed::around(store, keys))` keeps opened responses in the memory of the process.
/// `Sealed::around(NearCache::new(store), keys)` keeps sealed responses there, and opens the record for each replay.
///
/// # Records of other services
///
/// Without the key, the program `idem` and services without `Sealed` list a sealed record as unreadable, and replay
/// nothing. The program reads its keys from `IDEM_SEAL_KEYS` or from a file. A record that was stored without `Sealed` is
/// an error too, unless the service [reads unsealed records](Self::read_unsealed).
///
/// # Transactions
///
/// [`Attempt::commit`](crate::Attempt::commit) records the sealed response in the transaction of the handler.
///
/// # Cancellation
///
/// `Sealed` is as safe as the store below.
// The module has the same cfg. The attribute is repeated so that the documentation of the facade shows it.
#[cfg(feature = "seal")]
pub struct Sealed<S> {
    store: Arc<S>,
    opener: Opener,
}

impl<S: Store> Sealed<S> {
    /// Encrypts the responses that `store` stores.
    ///
    /// # Panics
    ///
    /// When `keys` has no primary key.
    #[must_use]
    pub fn around(store: S, keys: Keys) -> Self {
        assert!(
            keys.first().is_some(),
            "a sealed store needs a primary key: `Keys::new().primary(1, key)`"
        );
        Self {
            store: Arc::new(store),
            opener: Opener {
                keys: Arc::new(keys),
                reads_unsealed: false,
            },
        }
    }

    /// Replays also records that were stored without `Sealed`. Such a record is an error by default.
    ///
    /// Use this setting when you turn sealing on for a store with records, and remove it when the longest `ttl` has passed.
    /// Until then, somebody who can write to the store can insert a response.
    #[must_use]
    pub fn read_unsealed(mut self) -> Self {
        self.opener.reads_unsealed = true;
        self
    }

    /// A record that is sealed twice would never open.
    fn seal(&self, id: RecordId, record: &Record) -> Result<Record, StoreError> {
        if record.is_sealed() {
            return Err(StoreError::Unfit(
                "`Sealed` is around a store that is sealed already".into(),
            ));
        }
        let nonce = nonces::next(id).map_err(|error| StoreError::Unavailable(Box::new(error)))?;
        let key = self.opener.keys.first().ok_or(StoreError::Unsupported)?;
        let sealed = form::seal(record, id, key, nonce);
        // Sealing makes the record too long.
        let not_kept = || {
            let not_kept = Record::not_kept(record.fingerprint(), record.status());
            form::seal(&not_kept, id, key, nonce)
        };
        sealed
            .or_else(not_kept)
            .ok_or(StoreError::Undecodable(DecodeError::Damaged))
    }

    /// Seals a record, and sends it to the store.
    ///
    /// When a reply is lost, the engine sends the record again. Stores recognize the record by its bytes, and sealed
    /// bytes differ each time. So when the store reports the claim as lost, the bytes that it has are sent again, if
    /// they open to the same record.
    fn settle(
        &self,
        id: RecordId,
        record: Record,
        send: impl Fn(&S, Record) -> StoreFuture<Settled> + Send + 'static,
    ) -> StoreFuture<Settled> {
        let sealed = match self.seal(id, &record) {
            Ok(sealed) => sealed,
            Err(error) => return StoreFuture::ready(Err(error)),
        };
        let pending = match send(&self.store, sealed).try_now() {
            Ok(Ok(Settled::Lost)) => StoreFuture::ready(Ok(Settled::Lost)),
            Ok(reply) => return StoreFuture::ready(reply),
            Err(pending) => pending,
        };
        let (store, opener) = (self.store.clone(), self.opener.clone());
        StoreFuture::new(async move {
            let settled = pending.await?;
            if settled == Settled::Done {
                return Ok(settled);
            }
            match store.look_up(id).await {
                Ok(Some(Entry::Recorded { record: stored, .. })) => {
                    match opener.open(id, stored.clone()) {
                        Ok(known) if known.as_bytes() == record.as_bytes() => {
                            send(&store, stored).await
                        }
                        _ => Ok(Settled::Lost),
                    }
                }
                Ok(_) | Err(StoreError::Undecodable(_)) => Ok(Settled::Lost),
                Err(error) => Err(error),
            }
        })
    }

    /// Opens the records of a reply. A reply that is ready needs no clone of the keys, and no box.
    fn open<T: Send + 'static>(
        &self,
        reply: StoreFuture<T>,
        open: impl FnOnce(&Opener, T) -> Result<T, StoreError> + Send + 'static,
    ) -> StoreFuture<T> {
        match reply.try_now() {
            Ok(reply) => StoreFuture::ready(reply.and_then(|reply| open(&self.opener, reply))),
            Err(pending) => {
                let opener = self.opener.clone();
                StoreFuture::new(async move { open(&opener, pending.await?) })
            }
        }
    }
}

/// Opens records.
#[derive(Clone)]
struct Opener {
    keys: Arc<Keys>,
    reads_unsealed: bool,
}

impl Opener {
    fn open(&self, id: RecordId, record: Record) -> Result<Record, StoreError> {
        if self.reads_unsealed && !record.is_sealed() {
            return Ok(record);
        }
        form::open(record, id, &self.keys).map_err(StoreError::Undecodable)
    }

    fn open_entry(&self, id: RecordId, entry: Option<Entry>) -> Result<Option<Entry>, StoreError> {
        match entry {
            Some(Entry::Recorded {
                record,
                expires_in,
                origin,
                created_at,
                settled_at,
            }) => Ok(Some(Entry::Recorded {
                record: self.open(id, record)?,
                expires_in,
                origin,
                created_at,
                settled_at,
            })),
            entry => Ok(entry),
        }
    }

    /// Looks up the status of a listed record. Returns `None` when the record has gone, or no longer has the state that the
    /// query asks for.
    async fn open_listed(
        &self,
        store: &impl Store,
        mut listed: Summary,
        wanted: Option<StateKind>,
    ) -> Result<Option<Summary>, StoreError> {
        if listed.state != State::Unreadable(DecodeError::Sealed) {
            if matches!(listed.state, State::Recorded { .. }) && !self.reads_unsealed {
                listed.state = State::Unreadable(DecodeError::NotSealed);
            }
            return Ok(Some(listed));
        }
        let id = listed.id;
        let found = store.look_up(id).await;
        match found.and_then(|entry| self.open_entry(id, entry)) {
            Ok(entry) => {
                let found = entry.map(|entry| entry.summary(id));
                Ok(found.filter(|found| wanted.is_none_or(|wanted| wanted == found.state.kind())))
            }
            Err(StoreError::Undecodable(error)) => {
                listed.state = State::Unreadable(error);
                Ok(Some(listed))
            }
            Err(error) => Err(error),
        }
    }
}

impl<S: Store> Store for Sealed<S> {
    fn claim(&self, claim: Claim) -> StoreFuture<Claimed> {
        let id = claim.id;
        self.open(
            self.store.claim(claim),
            move |opener, claimed| match claimed {
                Claimed::Recorded { record, expires_in } => Ok(Claimed::Recorded {
                    record: opener.open(id, record)?,
                    expires_in,
                }),
                claimed => Ok(claimed),
            },
        )
    }

    fn renew(&self, holder: Holder, lease: Duration) -> StoreFuture<Settled> {
        self.store.renew(holder, lease)
    }

    fn complete(&self, holder: Holder, record: Record, ttl: Duration) -> StoreFuture<Settled> {
        self.settle(holder.id, record, move |store, sealed| {
            store.complete(holder, sealed, ttl)
        })
    }

    fn release(&self, holder: Holder) -> StoreFuture<Settled> {
        self.store.release(holder)
    }

    fn abandon(&self, holder: Holder) -> StoreFuture<Settled> {
        self.store.abandon(holder)
    }

    fn look_up(&self, id: RecordId) -> StoreFuture<Option<Entry>> {
        let entry = self.store.look_up(id);
        self.open(entry, move |opener, entry| opener.open_entry(id, entry))
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
        self.settle(id, record, move |store, sealed| {
            store.resolve(id, fence, sealed, ttl)
        })
    }

    /// Looks each sealed record of the page up, because the status of a record is sealed too. A record that does
    /// not open, or is not sealed although it must be, is listed as [`State::Unreadable`].
    fn list(&self, query: Query) -> StoreFuture<Page> {
        let (store, opener, state) = (self.store.clone(), self.opener.clone(), query.state);
        let page = self.store.list(query);
        StoreFuture::new(async move {
            let mut page = page.await?;
            let looks = page.entries.into_iter().map(|listed| {
                let (store, opener) = (store.clone(), opener.clone());
                async move { opener.open_listed(&*store, listed, state).await }
            });
            let entries = stream::iter(looks).buffered(LOOKS);
            let entries: Vec<Option<Summary>> = entries.try_collect().await?;
            page.entries = entries.into_iter().flatten().collect();
            Ok(page)
        })
    }

    fn stats(&self) -> StoreFuture<Stats> {
        self.store.stats()
    }

    fn forget_scope(&self, scope: ScopeId) -> StoreFuture<u64> {
        self.store.forget_scope(scope)
    }

    fn transactions(&self) -> Option<TransactionKind> {
        self.store.transactions()
    }

    fn record_statement(
        &self,
        holder: Holder,
        record: Record,
        ttl: Duration,
    ) -> Result<RecordStatement, StoreError> {
        let sealed = self.seal(holder.id, &record)?;
        self.store.record_statement(holder, sealed, ttl)
    }

    fn commit_state(&self, holder: Holder) -> StoreFuture<CommitState> {
        self.store.commit_state(holder)
    }

    fn remove_expired(&self) -> StoreFuture<u64> {
        self.store.remove_expired()
    }

    fn diagnose(&self) -> StoreFuture<Vec<Finding>> {
        self.store.diagnose()
    }

    /// The name of the store below.
    fn name(&self) -> &'static str {
        self.store.name()
    }

    fn observe(&self, observer: Arc<dyn Observer>) {
        self.store.observe(observer);
    }
}

impl<S> Clone for Sealed<S> {
    fn clone(&self) -> Self {
        Self {
            store: self.store.clone(),
            opener: self.opener.clone(),
        }
    }
}

impl<S: fmt::Debug> fmt::Debug for Sealed<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sealed")
            .field("store", &self.store)
            .field("keys", &self.opener.keys)
            .field("reads_unsealed", &self.opener.reads_unsealed)
            .finish()
    }
}

//! The Redis store: one script for each transition, one key for each record.

mod builder;
mod fitness;
mod link;
mod reply;
mod script;
#[cfg(feature = "redis-tls")]
mod tls;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

pub use self::builder::RedisStoreBuilder;
use self::link::{Failure, Link, Replicas};
use self::reply::Reply;
use self::script::Transition;
use super::millis::millis;
use super::{Claim, Claimed, Entry, Holder, Record, Settled, Store, StoreError, StoreFuture};
use crate::policy::OnUnknown;
use crate::record_id::RecordId;

/// Keeps claims and records in Redis (6 or later) or Valkey: one server, one behind Sentinel, or a
/// cluster.
///
/// A first request costs two round trips, one to claim and one to settle; a replay costs one. Every
/// transition is one script on one key, so that a cluster needs no hash tags. A script that the
/// server has forgotten is sent again. Time is the server's alone.
///
/// ```no_run
/// # async fn connect() -> Result<(), idem_runtime::store::StoreError> {
/// use std::time::Duration;
/// use idem_runtime::store::RedisStore;
///
/// let store = RedisStore::connect("redis://127.0.0.1/").await?;
///
/// let behind_sentinel = RedisStore::builder()
///     .sentinel("trades", ["redis://10.0.0.1:26379", "redis://10.0.0.2:26379"])
///     .min_replicas(1, Duration::from_millis(100))
///     .connect()
///     .await?;
/// # Ok(())
/// # }
/// ```
///
/// # What holds
///
/// | when | what holds |
/// |---|---|
/// | any number of processes, one primary that keeps its data | the whole contract of [`Store`] |
/// | memory full | new keys get 503; nothing is dropped, leases are renewed, and an answer that could not be kept is tried again for as long as its claim is held |
/// | restart with the append-only file | what was on disk; under `appendfsync everysec` a loss of power can take the last second, under `always` nothing acknowledged |
/// | restart without persistence | nothing: every key is new, and a retry runs again |
/// | failover | what the promoted replica had. A claim that was acknowledged and not yet replicated is lost, and a retry runs again; [`min_replicas`](RedisStoreBuilder::min_replicas) narrows that window and cannot close it |
/// | a jump of the server's clock | leases and records end earlier or later by the jump, for Redis keeps deadlines in wall-clock time |
/// | another `maxmemory-policy` than `noeviction` | nothing, so the store refuses such a server at every connection |
/// | the server cannot be reached | [`StoreError`]: never `Fresh` out of doubt. The next transition connects again |
///
/// # Fences
///
/// The first fence at a record id is the server's time in microseconds since 1970, and each takeover
/// adds one. So a fence is above every earlier one at the same id even after the key was released,
/// forgotten or expired and nothing is left of it, as long as the server's clock does not go back.
///
/// # What is stored
///
/// A string under the prefix and the 64 hexadecimal digits of the record id. Its bytes are
/// versioned, and hold neither a key nor a token nor a scope; the answer's headers and body are in
/// the clear. A value that this version cannot read is left alone, and its key gets 503.
///
/// Durations are kept in whole milliseconds, rounded up, and end at 100 years.
///
/// # Cancellation
///
/// A transition that is dropped half way was either run by the server or not. The next one gets a
/// new connection.
#[derive(Clone)]
// The module has this cfg as well. Here it also reaches the documentation of the facade.
#[cfg(feature = "redis")]
pub struct RedisStore(Arc<Inner>);

struct Inner {
    link: Link,
    prefix: String,
    timeout: Duration,
    replicas: Option<Replicas>,
}

impl RedisStore {
    /// Connects to one server, such as `redis://user:password@host:6379/0`.
    ///
    /// # Errors
    ///
    /// As [`RedisStoreBuilder::connect`].
    pub async fn connect(url: impl Into<String>) -> Result<Self, StoreError> {
        Self::builder().url(url).connect().await
    }

    /// Settings that differ from the defaults, and other servers than a single one.
    pub fn builder() -> RedisStoreBuilder {
        RedisStoreBuilder::new()
    }
}

impl Inner {
    /// The prefix and the digits of the id, without the formatter's own cost for each of them.
    fn key(&self, id: RecordId) -> String {
        const DIGITS: &[u8; 16] = b"0123456789abcdef";
        let mut key = String::with_capacity(self.prefix.len() + 64);
        key.push_str(&self.prefix);
        for byte in id.as_bytes() {
            for digit in [byte >> 4, byte & 15] {
                key.push(char::from(DIGITS[usize::from(digit)]));
            }
        }
        key
    }

    async fn run(
        &self,
        transition: &Transition,
        id: RecordId,
        arguments: &[&[u8]],
        replicas: Option<Replicas>,
    ) -> Result<(Reply, Option<usize>), Failure> {
        let key = self.key(id);
        let deadline = Instant::now() + self.timeout;
        let by_name = transition.by_name(&key, arguments);
        let answer = self.link.send(&by_name, replicas, deadline).await;
        let (value, acknowledged) = match answer {
            Err(Failure::Redis(error)) if reply::is_unknown_script(&error) => {
                let by_source = transition.by_source(&key, arguments);
                self.link.send(&by_source, replicas, deadline).await?
            }
            answer => answer?,
        };
        Ok((Reply::new(value).map_err(Failure::Store)?, acknowledged))
    }

    async fn claim(&self, claim: Claim) -> Result<Claimed, StoreError> {
        let retention = millis(claim.retention);
        let kept = (millis(claim.lease) + retention).to_string();
        let rerun: &[u8] = match claim.on_unknown {
            OnUnknown::Rerun => b"1",
            OnUnknown::Hold => b"0",
        };
        let mut claimed = [0; 40];
        claimed[..32].copy_from_slice(claim.fingerprint.as_bytes());
        claimed[32..].copy_from_slice(&retention.to_le_bytes());
        let arguments = [claim.owner.as_bytes(), &claimed[..], kept.as_bytes(), rerun];
        let answer = self
            .run(&script::CLAIM, claim.id, &arguments, self.replicas)
            .await;
        match answer {
            Ok((reply, acknowledged)) => {
                let claimed = reply.claimed()?;
                if matches!(claimed, Claimed::Fresh { .. }) {
                    self.ensure(acknowledged)?;
                }
                Ok(claimed)
            }
            Err(Failure::Redis(error)) if reply::is_out_of_memory(&error) => Ok(Claimed::Full),
            Err(failure) => Err(failure.into()),
        }
    }

    /// A transition that takes effect or does not.
    async fn settle(
        &self,
        transition: &Transition,
        id: RecordId,
        arguments: &[&[u8]],
    ) -> Result<Settled, StoreError> {
        let (reply, acknowledged) = self.run(transition, id, arguments, self.replicas).await?;
        let settled = reply.settled()?;
        if settled == Settled::Done {
            self.ensure(acknowledged)?;
        }
        Ok(settled)
    }

    /// Looks whether enough replicas have what was written.
    fn ensure(&self, acknowledged: Option<usize>) -> Result<(), StoreError> {
        match (self.replicas, acknowledged) {
            (Some(wanted), Some(count)) if count < wanted.count => Err(StoreError::Unavailable(
                format!(
                    "{count} of {} replicas acknowledged the write in time",
                    wanted.count
                )
                .into(),
            )),
            _ => Ok(()),
        }
    }

    async fn look_up(&self, id: RecordId) -> Result<Option<Entry>, StoreError> {
        let (reply, _) = self.run(&script::LOOK_UP, id, &[], None).await?;
        reply.entry()
    }

    async fn forget(&self, id: RecordId) -> Result<bool, StoreError> {
        let settled = self.settle(&script::FORGET, id, &[]).await?;
        Ok(settled == Settled::Done)
    }
}

impl From<Failure> for StoreError {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Redis(error) => reply::store_error(error),
            Failure::Store(error) => error,
        }
    }
}

/// Owner and fence, as a value holds them.
fn holder_bytes(holder: Holder) -> [u8; 24] {
    let mut bytes = [0; 24];
    bytes[..16].copy_from_slice(holder.owner.as_bytes());
    bytes[16..].copy_from_slice(&holder.fence.to_le_bytes());
    bytes
}

impl Store for RedisStore {
    fn claim(&self, claim: Claim) -> StoreFuture<Claimed> {
        let inner = self.0.clone();
        StoreFuture::new(async move { inner.claim(claim).await })
    }

    fn renew(&self, holder: Holder, lease: Duration) -> StoreFuture<Settled> {
        let inner = self.0.clone();
        StoreFuture::new(async move {
            let lease = millis(lease).to_string();
            let arguments = [&holder_bytes(holder), lease.as_bytes()];
            inner.settle(&script::RENEW, holder.id, &arguments).await
        })
    }

    fn complete(&self, holder: Holder, record: Record, ttl: Duration) -> StoreFuture<Settled> {
        let inner = self.0.clone();
        StoreFuture::new(async move {
            let ttl = millis(ttl).to_string();
            let arguments = [
                &holder_bytes(holder),
                &record.as_bytes()[..],
                ttl.as_bytes(),
            ];
            inner.settle(&script::COMPLETE, holder.id, &arguments).await
        })
    }

    fn release(&self, holder: Holder) -> StoreFuture<Settled> {
        let inner = self.0.clone();
        StoreFuture::new(async move {
            let arguments = [&holder_bytes(holder)[..]];
            inner.settle(&script::RELEASE, holder.id, &arguments).await
        })
    }

    fn abandon(&self, holder: Holder) -> StoreFuture<Settled> {
        let inner = self.0.clone();
        StoreFuture::new(async move {
            let arguments = [&holder_bytes(holder)[..]];
            inner.settle(&script::ABANDON, holder.id, &arguments).await
        })
    }

    fn look_up(&self, id: RecordId) -> StoreFuture<Option<Entry>> {
        let inner = self.0.clone();
        StoreFuture::new(async move { inner.look_up(id).await })
    }

    fn forget(&self, id: RecordId) -> StoreFuture<bool> {
        let inner = self.0.clone();
        StoreFuture::new(async move { inner.forget(id).await })
    }

    fn resolve(
        &self,
        id: RecordId,
        fence: u64,
        record: Record,
        ttl: Duration,
    ) -> StoreFuture<Settled> {
        let inner = self.0.clone();
        StoreFuture::new(async move {
            let ttl = millis(ttl).to_string();
            let arguments = [&fence.to_le_bytes(), &record.as_bytes()[..], ttl.as_bytes()];
            inner.settle(&script::RESOLVE, id, &arguments).await
        })
    }
}

/// Addresses and passwords stay out.
impl fmt::Debug for RedisStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisStore")
            .field("prefix", &self.0.prefix)
            .field("timeout", &self.0.timeout)
            .field("replicas", &self.0.replicas)
            .finish_non_exhaustive()
    }
}

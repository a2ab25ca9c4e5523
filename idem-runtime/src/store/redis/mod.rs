//! The Redis store: one script for each transition, one key for each record.
//!
//! A transition is a `script.rs`, and `reply.rs` reads its result. `servers.rs` sends it to the server that
//! is in charge of its key, over a connection of `server.rs`. `locator.rs` finds the servers in charge,
//! through `sentinel.rs` or `cluster.rs`. `check.rs` checks each new connection, and `probe.rs` tries every
//! command when the store connects. `failure.rs` sorts the errors.

mod access;
mod ask_all;
mod builder;
mod check;
mod cluster;
mod failure;
mod located;
mod locator;
mod probe;
mod reply;
mod script;
mod sentinel;
mod server;
mod servers;
mod slots;
#[cfg(feature = "redis-tls")]
mod tls;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use redis::Value;
use tokio::time::Instant;

pub use self::builder::RedisStoreBuilder;
use self::reply::Reply;
use self::script::Transition;
use self::server::{Replicas, Request, Sent};
use self::servers::Servers;
use super::millis::millis;
use super::{Claim, Claimed, Entry, Holder, Record, Settled, Store, StoreError, StoreFuture};
use crate::request::hex::Hex;
use crate::request::record_id::RecordId;
use crate::settings::policy::OnUnknown;

/// Keeps claims and records in Redis (6 or later) or Valkey: one server, one behind Sentinel, or a
/// cluster.
///
/// A first request costs two round trips, one to claim and one to settle; a replay costs one. Every
/// transition is one script on one key, so a cluster needs no hash tags; only
/// [`forget`](Store::forget) looks first and then removes what it saw. A script that the server has
/// forgotten is sent again. Time is the server's alone.
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
/// | memory full | new keys get 503; nothing is dropped, leases are renewed, and a record that does not fit is tried again until its `ttl` has passed; meanwhile the process that holds it replays it |
/// | restart with the append-only file | what was on disk; under `appendfsync everysec` a loss of power can take the last second, under `always` nothing acknowledged |
/// | restart without persistence | nothing: every key is new, and a retry runs again |
/// | failover | what the promoted replica had. A claim that was acknowledged and not yet replicated is lost, and a retry runs again; [`min_replicas`](RedisStoreBuilder::min_replicas) narrows that window and cannot close it |
/// | the server's clock is set back | the store reads the server's clock when it connects, and again when the server refuses a claim as late. So until the store connects again, a claim that a stalled server executes late may be granted, up to as late as the clock was set back. Nobody reads the reply, and the key stays in flight until the lease ends or the process that asked gives the claim back |
/// | a jump of the server's clock | leases and records end earlier or later by the jump, because Redis keeps deadlines in wall-clock time |
/// | another `maxmemory-policy` than `noeviction` | nothing, so the store refuses such a server |
/// | the server cannot be reached | [`StoreError`]: never `Fresh` out of doubt. The next transition connects again |
/// | the server stands still, and goes on later | a claim that it executes after its deadline takes nothing, and its reply is not read |
///
/// # What is checked when
///
/// - *At every connection*, also after a failover: the server is a primary, and its `maxmemory-policy`
///   is `noeviction`. A server that does not tell its policy is warned about in the log.
/// - *When the store connects*: every command and every script, on a key of its own below the prefix.
///   The error names the command that the server refuses. Needed are `EVALSHA`, `EVAL`, `GET`, `SET`,
///   `PTTL`, `PEXPIRE`, `DEL`, `TIME` and `INFO`, with `min_replicas` also `WAIT`, and on a cluster
///   `CLUSTER|SLOTS`, `CLUSTER|INFO` and `ASKING`.
/// - *When the store connects, and when other servers are in charge*: the policy of every replica that
///   Sentinel or the cluster names. At the start a replica that evicts is an error; later it is an
///   error in the log, and its keys get 503 once it is promoted.
///
/// # Failover
///
/// With Sentinels and on a cluster, the store asks who is in charge when a server refuses, breaks a
/// connection, does not respond for 250 ms, or has fewer replicas than
/// [`min_replicas`](RedisStoreBuilder::min_replicas) asks for. It asks all Sentinels, or up to eight nodes, at once,
/// and believes the one that knows the newest failover; one that hangs delays this by 100 ms. Once a
/// replica is promoted, a transition is served within its timeout and another second.
///
/// A connection may take longer than one transition, and has two seconds at least. The next transition
/// finds it made. After a connection to a server that is not fit, or does not respond, the store pauses
/// for 250 ms, and meanwhile reports that reason.
///
/// # Two primaries
///
/// A primary that is cut off from Sentinels or from other nodes, and not from its clients, accepts
/// writes for a while after one of its replicas was promoted. Both primaries grant the same key.
///
/// - [`min_replicas`](RedisStoreBuilder::min_replicas) prevents it when the number is that of all
///   replicas: the old primary has lost one of them, and grants nothing. With a smaller number, a
///   primary that keeps enough replicas on its side still grants. `min-replicas-to-write` on the
///   servers does the same, `min-replicas-max-lag` later.
/// - On a cluster, a primary that cannot reach the majority stops by itself after
///   `cluster-node-timeout`. With Sentinel it does not.
/// - A server that an operator demotes with `REPLICAOF` replays to existing connections until the first
///   write on each. `CLIENT KILL TYPE normal` disconnects them, as Sentinel does by itself.
/// - Nothing prevents it when an operator promotes a replica and leaves the old primary running. Stop
///   the old primary first, and start it again only as a replica.
///
/// The store cannot detect such a second run. A system that the handler calls with
/// [`derive_key`](crate::Attempt::derive_key) receives the same key from both runs, and can refuse the
/// second.
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
/// versioned, and hold neither a key nor a token nor a scope; the response's headers and body are in
/// the clear. A value that this version cannot read is left alone, and its key gets 503. A released
/// key holds 26 bytes for ten seconds, which count as nothing.
///
/// Durations are kept in whole milliseconds, rounded up, and end at 100 years.
///
/// # Cancellation
///
/// A transition that is dropped half way was either executed by the server or not.
#[derive(Clone)]
// The module has this cfg as well. Here it also reaches the documentation of the facade.
#[cfg(feature = "redis")]
pub struct RedisStore(Arc<Inner>);

/// How often a claim is sent when the server says that it is too late: the second time with the clock
/// that the server has now.
const CLOCKS: u32 = 2;

struct Inner {
    servers: Arc<Servers>,
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
    /// The prefix and the digits of the id.
    fn key(&self, id: RecordId) -> String {
        let mut key = String::with_capacity(self.prefix.len() + 64);
        key.push_str(&self.prefix);
        key.extend(Hex(id.as_bytes()).digits());
        key
    }

    fn deadline(&self) -> Instant {
        Instant::now() + self.timeout
    }

    async fn run(
        &self,
        transition: &Transition,
        id: RecordId,
        arguments: &[&[u8]],
        replicas: Option<Replicas>,
        deadline: Instant,
    ) -> Result<(Reply, Sent), StoreError> {
        let request = Request {
            transition,
            key: &self.key(id),
            arguments,
            expires: false,
            replicas,
            deadline,
        };
        self.servers
            .send(&request)
            .await
            .map_err(Into::into)
            .and_then(read)
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
        let request = Request {
            transition: &script::CLAIM,
            key: &self.key(claim.id),
            arguments: &arguments,
            expires: true,
            replicas: self.replicas,
            deadline: self.deadline(),
        };
        for _ in 0..CLOCKS {
            let (reply, sent) = match self.servers.send(&request).await {
                Ok(sent) => read(sent)?,
                Err(failure) if failure.is_out_of_memory() => return Ok(Claimed::Full),
                Err(failure) => return Err(failure.into()),
            };
            let Some(micros) = reply.too_late() else {
                let claimed = reply.claimed()?;
                if matches!(claimed, Claimed::Fresh { .. }) {
                    self.ensure(sent.acknowledged)?;
                }
                return Ok(claimed);
            };
            // In time here, and too late there: the clock was set, or read while the server was slow.
            sent.clock.learn(micros, sent.at);
        }
        Err(StoreError::TimedOut)
    }

    /// A transition that takes effect or does not.
    async fn settle(
        &self,
        transition: &Transition,
        id: RecordId,
        arguments: &[&[u8]],
    ) -> Result<Settled, StoreError> {
        let (reply, sent) = self
            .run(transition, id, arguments, self.replicas, self.deadline())
            .await?;
        let settled = reply.settled()?;
        if settled == Settled::Done {
            self.ensure(sent.acknowledged)?;
        }
        Ok(settled)
    }

    /// Whether enough replicas have the write.
    fn ensure(&self, acknowledged: Option<usize>) -> Result<(), StoreError> {
        match (self.replicas, acknowledged) {
            (Some(wanted), Some(count)) if count < wanted.count => Err(StoreError::Unavailable(
                format!(
                    "{count} of {} redis replicas acknowledged the write in time",
                    wanted.count
                )
                .into(),
            )),
            _ => Ok(()),
        }
    }

    async fn look_up(&self, id: RecordId) -> Result<Option<Entry>, StoreError> {
        let (reply, _) = self
            .run(&script::LOOK_UP, id, &[], None, self.deadline())
            .await?;
        reply.entry()
    }

    /// Removes what was seen, and only that: sent again after its reply was lost, it must not remove a
    /// claim that was made since.
    async fn forget(&self, id: RecordId) -> Result<bool, StoreError> {
        let deadline = self.deadline();
        loop {
            let (reply, _) = self.run(&script::IDENTIFY, id, &[], None, deadline).await?;
            let Some(identity) = reply.identity() else {
                return Ok(false);
            };
            let (reply, sent) = self
                .run(&script::FORGET, id, &[&identity], self.replicas, deadline)
                .await?;
            if reply.settled()? == Settled::Done {
                self.ensure(sent.acknowledged)?;
                return Ok(true);
            }
            // The command whose reply was lost may have removed it.
            if sent.resent && self.is_gone(id, &identity, deadline).await? {
                return Ok(true);
            }
        }
    }

    async fn release(&self, holder: Holder) -> Result<Settled, StoreError> {
        let (holder_bytes, deadline) = (holder_bytes(holder), self.deadline());
        let arguments = [&holder_bytes[..]];
        let (reply, sent) = self
            .run(
                &script::RELEASE,
                holder.id,
                &arguments,
                self.replicas,
                deadline,
            )
            .await?;
        if reply.settled()? == Settled::Done {
            self.ensure(sent.acknowledged)?;
            return Ok(Settled::Done);
        }
        // The command whose reply was lost may have released the claim, and another request may have
        // claimed the key since.
        let identity = [b"S", &holder_bytes[..]].concat();
        if sent.resent && self.is_gone(holder.id, &identity, deadline).await? {
            return Ok(Settled::Done);
        }
        Ok(Settled::Lost)
    }

    /// Whether a claim or record was removed, and not taken over.
    async fn is_gone(
        &self,
        id: RecordId,
        identity: &[u8],
        deadline: Instant,
    ) -> Result<bool, StoreError> {
        let (reply, sent) = self
            .run(&script::GONE, id, &[identity], self.replicas, deadline)
            .await?;
        let is_gone = reply.settled()? == Settled::Done;
        if is_gone {
            self.ensure(sent.acknowledged)?;
        }
        Ok(is_gone)
    }
}

fn read(mut sent: Sent) -> Result<(Reply, Sent), StoreError> {
    let value = std::mem::replace(&mut sent.value, Value::Nil);
    Ok((Reply::new(value)?, sent))
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
        StoreFuture::new(async move { inner.release(holder).await })
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

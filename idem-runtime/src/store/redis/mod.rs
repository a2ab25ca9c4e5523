//! The Redis store: one script for each transition, one key for each record.
//!
//! A transition in `transitions.rs` sends a script of `script.rs`, and `reply.rs` reads its result. `servers.rs` sends the
//! script to the primary of the key, over a connection in `server.rs`. `locator.rs` finds the
//! primaries, through `sentinel.rs` or `cluster.rs`. `check.rs` checks each new connection, and
//! `probe.rs` tries every command when the store connects. `failure.rs` classifies errors. `fill.rs` reports how full the
//! servers are.

mod access;
mod ask_all;
mod builder;
mod check;
mod cluster;
mod diagnosis;
mod failure;
mod fill;
mod form;
mod listing;
mod located;
mod locator;
mod position;
mod probe;
mod reply;
mod script;
mod sentinel;
mod server;
mod servers;
mod slots;
#[cfg(feature = "redis-tls")]
mod tls;
mod transitions;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

pub use self::builder::RedisStoreBuilder;
use self::fill::Fill;
use self::form::holder_bytes;
use self::server::Replicas;
use self::servers::Servers;
use super::millis::millis;
use super::observer::REDIS;
use super::{
    Claim, Claimed, Entry, Finding, Holder, Page, Query, Record, Settled, Stats, Store, StoreError,
    StoreFuture,
};
use crate::observe::Observer;
use crate::request::record_id::RecordId;
use crate::request::scope_id::ScopeId;

/// Stores claims and records in Redis (6 or later) or Valkey: one server, servers with Sentinel, or
/// a cluster.
///
/// A first request costs two round trips: one to claim, and one to settle the claim. A replay costs
/// one round trip. Every transition is one script on one key, so a cluster needs no hash tags. Only
/// [`forget`](Store::forget) needs two scripts: it reads the entry, and then removes that entry.
/// When the server no longer has a script, the store sends the script again. All times come from
/// the server's clock.
///
/// ```no_run
/// # extern crate idem_runtime as axum_idem;
/// # async fn connect() -> Result<(), axum_idem::store::StoreError> {
/// use std::time::Duration;
/// use axum_idem::store::RedisStore;
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
/// # Guarantees
///
/// | situation | guarantee |
/// |---|---|
/// | any number of processes, one primary that keeps its data | all rules of [`Store`] |
/// | memory full | new keys get 503. No entry is evicted, and leases are still renewed. A record that does not fit is retried until its `ttl` has passed; until then the process that holds the record replays it |
/// | restart with the append-only file | every write that was on disk is kept. With `appendfsync everysec`, a power failure or a killed Redis process can lose the writes of the last two seconds. With `always`, neither loses an acknowledged write |
/// | restart without persistence | no guarantee: every key is new, and a retry runs the handler again |
/// | failover | every write that the promoted replica had is kept. A claim that was acknowledged but not yet replicated is lost, and a retry runs the handler again. [`min_replicas`](RedisStoreBuilder::min_replicas) makes such a loss less likely and cannot exclude it |
/// | the server's clock is set back | a stalled server may grant a claim that it executes late, by up to the time by which the clock was set back. This ends when the store connects, or when the server refuses a claim as late, because the store then reads the server's clock again. Nobody reads the reply to such a claim. The key stays in flight until the lease ends, or until the process that sent the claim abandons it |
/// | a jump of the server's clock | leases and records end earlier or later by the length of the jump, because Redis stores deadlines in wall-clock time |
/// | a `maxmemory-policy` other than `noeviction` | no guarantee, so the store refuses such a server |
/// | the server cannot be reached | [`StoreError`]: an uncertain claim is never `Fresh`. The next transition connects again |
/// | the server freezes and continues later | a claim that the server executes after its deadline has no effect, and its reply is ignored |
///
/// # Checks
///
/// - *For every connection*, also after a failover: the server is a primary, and its
///   `maxmemory-policy` is `noeviction`. When a server does not report its policy, the store logs a
///   warning.
/// - *When the store connects*: every command and every script, on a separate key under the prefix.
///   When the server refuses a command, the error names it. The store needs `EVALSHA`, `EVAL`,
///   `GET`, `SET`, `PTTL`, `PEXPIRE`, `DEL`, `TIME` and `INFO`. With `min_replicas` it also needs
///   `WAIT`, and on a cluster `CLUSTER|SLOTS`, `CLUSTER|INFO` and `ASKING`. The operations `list`, `stats`
///   and `forget_scope` also need `SCAN`, `GETRANGE` and `STRLEN`, which are not tried.
/// - *When the store connects, and whenever the primaries change*: the policy of every replica that
///   Sentinel or the cluster names. When the store connects, a replica that evicts is an error.
///   Later the store logs an error, and keys on that replica get 503 once it is promoted.
///
/// # Failover
///
/// With Sentinels and on a cluster, the store asks which server is the primary when a server refuses a
/// command, closes a connection, or does not respond for 250 ms. It also asks when a server has fewer
/// replicas than [`min_replicas`](RedisStoreBuilder::min_replicas) requires. The store asks all
/// Sentinels, or up to eight nodes, at the same time. It uses the reply that knows the newest
/// failover. A Sentinel or a node that hangs delays this by 100 ms. Once a replica is promoted, a
/// transition completes within its timeout plus one second.
///
/// Opening a connection may take longer than one transition: it has at least two seconds. The next
/// transition uses the connection when it is open. After a connection to a server that is unfit or
/// does not respond, the store pauses for 250 ms. During the pause, transitions fail with the same
/// error.
///
/// # Two primaries
///
/// A primary may lose contact with Sentinels or other nodes, but not with its clients. It then
/// accepts writes for a while after one of its replicas was promoted. Both primaries grant claims
/// for the same key.
///
/// - [`min_replicas`](RedisStoreBuilder::min_replicas) prevents this when it is the number of all
///   replicas: the old primary has lost a replica, so it grants no claim. With a smaller number, a
///   primary that still has enough replicas continues to grant claims. `min-replicas-to-write` on
///   the servers has the same effect, with a delay of `min-replicas-max-lag`.
/// - On a cluster, a primary that cannot reach the majority stops by itself after
///   `cluster-node-timeout`. With Sentinel it does not stop.
/// - A server that an operator demotes with `REPLICAOF` replays to existing connections until the
///   first write on each connection. `CLIENT KILL TYPE normal` disconnects them; Sentinel does this
///   by itself.
/// - Nothing prevents two primaries when an operator promotes a replica and leaves the old primary
///   running. Stop the old primary first, and restart it only as a replica.
///
/// The store cannot detect that a handler runs twice for this reason. When the handler calls another system with
/// [`derive_key`](crate::Attempt::derive_key), that system gets the same key from both runs and can
/// refuse the second call.
///
/// # Fences
///
/// The first fence of a record id is the server's time in microseconds since 1970, and each
/// takeover adds one. So a fence is higher than every earlier fence of the same id, even when the
/// earlier entry was released, forgotten or expired. This holds as long as the server's clock does
/// not go back.
///
/// # Stored data
///
/// Each record id has one Redis string. Its name is the prefix and the 64 hexadecimal digits of the
/// record id. The bytes of the string are versioned, and contain no idempotency key, no token and
/// no scope. The headers and the body of the response, the endpoint and the label are not encrypted. A string that this
/// version cannot read stays unchanged, and requests with its idempotency key get 503. After a release, a
/// marker of 26 bytes remains for ten seconds. The store treats the marker as no entry.
///
/// Durations are stored in whole milliseconds, rounded up, and limited to 100 years.
///
/// # Listing
///
/// [`list`](Store::list) sends `SCAN` to each primary in turn, on a new connection. The order is that of the server. A
/// page scans up to 20,000 keys, fewer when its limit is small, and may be empty. [`stats`](Store::stats) reads every
/// key for half of the [`timeout`](RedisStoreBuilder::timeout), and reports where it stopped. Redis has no index, so
/// finding a few records among many takes as long as a whole listing.
///
/// `SCAN` returns some keys twice after the server has shrunk its table of keys. A listing remembers its last 128 records,
/// and does not list any of them again. When most of a large database expires during a listing, a record may still appear
/// twice. A cursor is refused with [`StoreError::InvalidCursor`] after slots have moved, or after a restart or a failover of
/// the primary that is being scanned: begin the listing again. While a cluster moves a slot, a listing may miss its records.
///
/// [`forget_scope`](Store::forget_scope) scans every primary until a scan removes nothing, at most three times. A record
/// may remain when slots move or a replica is promoted during each of these scans. Call `forget_scope` again after such a
/// change, until it returns 0.
///
/// # Cancellation
///
/// When the future of a transition is dropped, the server may or may not execute the transition.
#[derive(Clone)]
// The module has the same cfg. The attribute is repeated so that the facade's documentation shows
// it.
#[cfg(feature = "redis")]
pub struct RedisStore(Arc<Inner>);

struct Inner {
    servers: Arc<Servers>,
    prefix: String,
    timeout: Duration,
    replicas: Option<Replicas>,
    fill: Arc<Fill>,
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

    /// Starts a store with other settings than the defaults, or with Sentinels or a cluster.
    pub fn builder() -> RedisStoreBuilder {
        RedisStoreBuilder::new()
    }
}

impl Store for RedisStore {
    fn claim(&self, claim: Claim) -> StoreFuture<Claimed> {
        let inner = self.0.clone();
        StoreFuture::new(async move {
            inner.fill.report(&inner.servers, inner.timeout);
            inner.claim(claim).await
        })
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

    fn list(&self, query: Query) -> StoreFuture<Page> {
        let inner = self.0.clone();
        StoreFuture::new(async move { inner.list(query).await })
    }

    fn stats(&self) -> StoreFuture<Stats> {
        let inner = self.0.clone();
        StoreFuture::new(async move { inner.stats().await })
    }

    fn forget_scope(&self, scope: ScopeId) -> StoreFuture<u64> {
        let inner = self.0.clone();
        StoreFuture::new(async move { inner.forget_scope(scope).await })
    }

    /// Removes nothing, because Redis removes expired keys itself.
    fn remove_expired(&self) -> StoreFuture<u64> {
        StoreFuture::ready(Ok(0))
    }

    fn diagnose(&self) -> StoreFuture<Vec<Finding>> {
        let inner = self.0.clone();
        StoreFuture::new(async move { inner.diagnose().await })
    }

    fn name(&self) -> &'static str {
        REDIS
    }

    fn observe(&self, observer: Arc<dyn Observer>) {
        self.0.fill.observe(observer);
    }
}

/// Omits addresses, because they contain passwords.
impl fmt::Debug for RedisStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisStore")
            .field("prefix", &self.0.prefix)
            .field("timeout", &self.0.timeout)
            .field("replicas", &self.0.replicas)
            .finish_non_exhaustive()
    }
}

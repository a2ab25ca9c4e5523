//! The trait that receives the reports of a service.

use std::time::Duration;

use super::{AttemptEnd, Decided, Place, StoreCall, Waited};

/// Receives reports about requests with a key, attempts and the store, for example to count them.
///
/// Pass an observer to [`IdempotencyBuilder::observer`](crate::IdempotencyBuilder::observer). Every method
/// has a default that does nothing, so an observer implements only what it needs. The feature `metrics` has
/// an observer for the `metrics` facade.
///
/// A method runs in the task of the request or in the code of the store, so it must return quickly and must
/// not block. When a method panics, the panic is caught and logged, and the request continues.
///
/// No report contains a key, a scope, a record id or a label. A request without a key, or with a safe method
/// such as GET, is not reported: it costs nothing.
///
/// ```
/// # extern crate idem_runtime as axum_idem;
/// use std::sync::Arc;
/// use std::sync::atomic::{AtomicU64, Ordering};
///
/// use axum_idem::Idempotency;
/// use axum_idem::observe::{Decided, Observer, Outcome};
///
/// #[derive(Clone, Default)]
/// struct Replays(Arc<AtomicU64>);
///
/// impl Observer for Replays {
///     fn decided(&self, decided: &Decided) {
///         if decided.outcome == Outcome::Replayed {
///             self.0.fetch_add(1, Ordering::Relaxed);
///         }
///     }
/// }
///
/// let replays = Replays::default();
/// let idem = Idempotency::builder().observer(replays.clone()).build();
/// # let _ = idem;
/// ```
#[expect(unused_variables, reason = "the defaults do nothing")]
pub trait Observer: Send + Sync + 'static {
    /// The engine has decided what a request with a key gets. Reported once for each request with a key that
    /// reaches its handler.
    fn decided(&self, decided: &Decided) {}

    /// A request with `in_flight = wait(…)` has waited for another request. Not reported when its client
    /// disconnects meanwhile.
    fn waited(&self, waited: &Waited) {}

    /// An attempt begins: its claim was granted. The attempt runs in [`Place::Request`].
    fn attempt_started(&self, endpoint: &'static str) {}

    /// The client of a running attempt has disconnected, or a layer has dropped its future. The attempt
    /// continues in [`Place::Background`].
    fn attempt_detached(&self, endpoint: &'static str) {}

    /// An attempt no longer runs. Reported once for each [`attempt_started`](Self::attempt_started), also after a
    /// panic. `place` says where the attempt ran last.
    fn attempt_stopped(&self, endpoint: &'static str, place: Place) {}

    /// The store has settled an attempt, or the engine has given up settling it. While the store fails, this may be
    /// long after [`attempt_stopped`](Self::attempt_stopped). A process that is killed reports nothing.
    fn attempt_ended(&self, end: &AttemptEnd) {}

    /// A response was sent although the store did not accept its record in time. The response carries
    /// `Idempotency-Degraded: unrecorded`.
    fn unrecorded(&self, endpoint: &'static str) {}

    /// A call of the store has ended.
    fn store_called(&self, call: &StoreCall) {}

    /// How many bytes a store with a limit uses now. [`MemoryStore`](crate::store::MemoryStore) reports it at
    /// most once a second, when it grants or refuses a claim. `RedisStore` reports the memory of its fullest
    /// primary at most every ten seconds, after a claim, if the server has a `maxmemory`. `SqliteStore` reports it
    /// if it has a `max_bytes`.
    fn store_filled(&self, store: &'static str, bytes: u64, max_bytes: u64) {}

    /// A store has evicted finished records that have not expired. Their retries run again.
    fn evicted(&self, store: &'static str, records: u64) {}

    /// The background sweeper of a store has removed expired records.
    fn swept(&self, store: &'static str, records: u64) {}

    /// A transition has waited for a connection of the store, because all were in use.
    /// `PostgresStore` reports such waits, and `SqliteStore` reports them for its connections that read. A transition
    /// that got no connection in time is reported too.
    fn connection_awaited(&self, store: &'static str, waited: Duration) {}
}

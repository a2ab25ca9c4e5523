//! Metrics of a service, for the [`metrics`] facade.
//!
//! [`Metrics`] is an observer. It needs a recorder, such as the one of `metrics-exporter-prometheus`:
//!
//! ```
//! # extern crate idem_runtime as axum_idem;
//! use axum_idem::Idempotency;
//! use axum_idem::metrics::Metrics;
//!
//! // First install the recorder of your exporter, with the buckets in `axum_idem::metrics::BUCKETS`.
//! let idem = Idempotency::builder().observer(Metrics::default()).build();
//! # let _ = idem;
//! ```
//!
//! Install the recorder before the first request with a key. A metric that is registered earlier goes to no
//! recorder for the rest of the process.
//!
//! # The metrics
//!
//! | name | type | labels | counts |
//! |---|---|---|---|
//! | `idempotency_requests_total` | counter | `endpoint`, `outcome` | requests with a key, by the decision about them |
//! | `idempotency_attempts_total` | counter | `endpoint`, `end` | ended attempts: `recorded`, `released`, `unknown`, `overtaken` |
//! | `idempotency_attempt_duration_seconds` | histogram | `endpoint` | the time from a claim until it is settled |
//! | `idempotency_wait_duration_seconds` | histogram | `endpoint` | how long requests with `in_flight = wait(…)` waited |
//! | `idempotency_attempts_running` | gauge | `place` | attempts that run now, in a `request` or in the `background` |
//! | `idempotency_unrecorded_responses_total` | counter | `endpoint` | responses that were sent before the store had accepted their record |
//! | `idempotency_replayed_bytes_total` | counter | – | bytes of the replayed records |
//! | `idempotency_recorded_bytes_total` | counter | – | bytes of the stored records |
//! | `idempotency_store_duration_seconds` | histogram | `store`, `operation` | the duration of a call of the store |
//! | `idempotency_store_errors_total` | counter | `store`, `operation`, `kind` | failed calls. The kind `dropped` is a call whose caller gave up, which is often no error: the client disconnected |
//! | `idempotency_store_connection_wait_seconds` | histogram | `store` | waits for a connection of the store, when all were in use |
//! | `idempotency_store_bytes`, `idempotency_store_limit_bytes` | gauge | `store` | how full a store with a limit is; of Redis, the memory of the fullest primary |
//! | `idempotency_evicted_records_total` | counter | `store` | records that a full store has evicted |
//! | `idempotency_swept_records_total` | counter | `store` | expired records that the sweeper has removed |
//!
//! [`Outcome::as_str`](crate::observe::Outcome::as_str) has the values of `outcome` and `end`. No label contains
//! a key, a scope or a record id. An `endpoint` is the path of a handler, so it has as many values as there are handlers.
//!
//! All counters of an endpoint are registered with its first request. When the first unknown outcome comes before the
//! next scrape, its series begins at 1, and `increase(…)` returns 0. The published alerts also find series that begin
//! above 0.
//!
//! With the OpenTelemetry rules, the names are `idempotency.requests`, `idempotency.attempt.duration` in
//! seconds and so on: dots, no `_total`, and the unit as metadata.

mod endpoints;
mod list;
mod names;
mod stores;

use std::sync::Arc;
use std::time::Duration;

use self::endpoints::Endpoint;
use self::list::List;
pub use self::names::BUCKETS;
use self::stores::StoreMetrics;
use crate::observe::{AttemptEnd, Decided, Observer, Place, StoreCall, Waited};

/// Observer that counts and times with the [`metrics`] facade.
///
/// Pass it to [`IdempotencyBuilder::observer`](crate::IdempotencyBuilder::observer). Clones share their
/// handles. The [module](self) lists the metrics.
#[derive(Clone, Debug, Default)]
// The module has the same cfg. The attribute is repeated so that the facade's documentation shows
// it.
#[cfg(feature = "metrics")]
pub struct Metrics(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    endpoints: List<Endpoint>,
    stores: List<StoreMetrics>,
}

impl Metrics {
    fn endpoint(&self, endpoint: &'static str) -> &Endpoint {
        self.0.endpoints.get(endpoint, Endpoint::register)
    }

    fn store(&self, store: &'static str) -> &StoreMetrics {
        self.0.stores.get(store, StoreMetrics::register)
    }
}

impl Observer for Metrics {
    fn decided(&self, decided: &Decided) {
        self.endpoint(decided.endpoint).decided(decided);
    }

    fn waited(&self, waited: &Waited) {
        self.endpoint(waited.endpoint).waited(waited.waited);
    }

    fn attempt_started(&self, endpoint: &'static str) {
        self.endpoint(endpoint).running(Place::Request, 1.0);
    }

    fn attempt_detached(&self, endpoint: &'static str) {
        let endpoint = self.endpoint(endpoint);
        endpoint.running(Place::Request, -1.0);
        endpoint.running(Place::Background, 1.0);
    }

    fn attempt_stopped(&self, endpoint: &'static str, place: Place) {
        self.endpoint(endpoint).running(place, -1.0);
    }

    fn attempt_ended(&self, end: &AttemptEnd) {
        self.endpoint(end.endpoint).ended(end);
    }

    fn unrecorded(&self, endpoint: &'static str) {
        self.endpoint(endpoint).unrecorded();
    }

    fn store_called(&self, call: &StoreCall) {
        self.store(call.store).called(call);
    }

    fn store_filled(&self, store: &'static str, bytes: u64, max_bytes: u64) {
        self.store(store).filled(bytes, max_bytes);
    }

    fn evicted(&self, store: &'static str, records: u64) {
        self.store(store).evicted(records);
    }

    fn swept(&self, store: &'static str, records: u64) {
        self.store(store).swept(records);
    }

    fn connection_awaited(&self, store: &'static str, waited: Duration) {
        self.store(store).connection_awaited(waited);
    }
}

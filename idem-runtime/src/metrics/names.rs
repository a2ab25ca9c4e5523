//! The names of the metrics, their descriptions and their buckets.

use std::sync::Once;

use ::metrics::{Unit, describe_counter, describe_gauge, describe_histogram};

pub(super) const REQUESTS: &str = "idempotency_requests_total";
pub(super) const ATTEMPTS: &str = "idempotency_attempts_total";
pub(super) const ATTEMPT_DURATION: &str = "idempotency_attempt_duration_seconds";
pub(super) const WAIT_DURATION: &str = "idempotency_wait_duration_seconds";
pub(super) const RUNNING: &str = "idempotency_attempts_running";
pub(super) const UNRECORDED: &str = "idempotency_unrecorded_responses_total";
pub(super) const REPLAYED_BYTES: &str = "idempotency_replayed_bytes_total";
pub(super) const RECORDED_BYTES: &str = "idempotency_recorded_bytes_total";
pub(super) const STORE_DURATION: &str = "idempotency_store_duration_seconds";
pub(super) const STORE_ERRORS: &str = "idempotency_store_errors_total";
pub(super) const CONNECTION_WAIT: &str = "idempotency_store_connection_wait_seconds";
pub(super) const STORE_BYTES: &str = "idempotency_store_bytes";
pub(super) const STORE_LIMIT: &str = "idempotency_store_limit_bytes";
pub(super) const EVICTED: &str = "idempotency_evicted_records_total";
pub(super) const SWEPT: &str = "idempotency_swept_records_total";

/// From 100 microseconds, because a call of Redis takes less than the 5 milliseconds with which the usual
/// buckets begin.
const STORE_BUCKETS: &[f64] = &[
    1e-4, 2.5e-4, 5e-4, 1e-3, 2.5e-3, 5e-3, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5,
];
const ATTEMPT_BUCKETS: &[f64] = &[
    1e-3, 5e-3, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 900.0,
];

/// The buckets of each histogram, in seconds, by the name of the metric.
///
/// `metrics-exporter-prometheus` exports a histogram without buckets as a summary, which cannot be added up
/// over several processes. Set the buckets when you build its recorder:
///
/// ```ignore
/// let mut builder = PrometheusBuilder::new();
/// for (name, buckets) in axum_idem::metrics::BUCKETS {
///     builder = builder.set_buckets_for_metric(Matcher::Full(name.to_string()), buckets)?;
/// }
/// let handle = builder.install_recorder()?;
/// ```
// The module has the same cfg. The attribute is repeated so that the facade's documentation shows
// it.
#[cfg(feature = "metrics")]
pub const BUCKETS: [(&str, &[f64]); 4] = [
    (ATTEMPT_DURATION, ATTEMPT_BUCKETS),
    (WAIT_DURATION, ATTEMPT_BUCKETS),
    (STORE_DURATION, STORE_BUCKETS),
    (CONNECTION_WAIT, STORE_BUCKETS),
];

/// Describes the metrics to the recorder, once.
pub(super) fn describe() {
    static DESCRIBED: Once = Once::new();
    DESCRIBED.call_once(describe_all);
}

fn describe_all() {
    describe_counter!(REQUESTS, Unit::Count, "Requests with a key, by decision.");
    describe_counter!(ATTEMPTS, Unit::Count, "Ended attempts, by their end.");
    describe_histogram!(
        ATTEMPT_DURATION,
        Unit::Seconds,
        "Time from a claim until the attempt is settled."
    );
    describe_histogram!(
        WAIT_DURATION,
        Unit::Seconds,
        "How long requests waited for another request with the same key."
    );
    describe_gauge!(RUNNING, Unit::Count, "Attempts that run now.");
    describe_counter!(
        UNRECORDED,
        Unit::Count,
        "Responses that were sent before the store had accepted their record."
    );
    describe_counter!(
        REPLAYED_BYTES,
        Unit::Bytes,
        "Bytes of the replayed records."
    );
    describe_counter!(RECORDED_BYTES, Unit::Bytes, "Bytes of the stored records.");
    describe_histogram!(
        STORE_DURATION,
        Unit::Seconds,
        "Duration of a call of the store."
    );
    describe_counter!(STORE_ERRORS, Unit::Count, "Failed calls of the store.");
    describe_histogram!(
        CONNECTION_WAIT,
        Unit::Seconds,
        "Waits for a connection of the store when all were in use."
    );
    describe_gauge!(STORE_BYTES, Unit::Bytes, "How many bytes the store uses.");
    describe_gauge!(
        STORE_LIMIT,
        Unit::Bytes,
        "How many bytes the store may use."
    );
    describe_counter!(
        EVICTED,
        Unit::Count,
        "Records that a full store has evicted."
    );
    describe_counter!(SWEPT, Unit::Count, "Expired records that were removed.");
}

//! The metrics of one store.

use std::sync::OnceLock;
use std::time::Duration;

use ::metrics::{Counter, Gauge, Histogram, counter, gauge, histogram};

use super::names;
use crate::observe::{CallResult, Operation, StoreCall};

/// The results that count as errors.
const ERRORS: [CallResult; 6] = [
    CallResult::Unavailable,
    CallResult::TimedOut,
    CallResult::Dropped,
    CallResult::Unfit,
    CallResult::Undecodable,
    CallResult::Other,
];

/// The handles of one store.
pub(super) struct StoreMetrics {
    store: &'static str,
    /// Registered with the first call of each operation, because a service uses few of them.
    operations: [OnceLock<OperationMetrics>; Operation::ALL.len()],
    connection_wait: OnceLock<Histogram>,
    fill: OnceLock<(Gauge, Gauge)>,
    evicted: Counter,
    swept: Counter,
}

struct OperationMetrics {
    duration: Histogram,
    errors: [Counter; ERRORS.len()],
}

impl OperationMetrics {
    #[cold]
    fn failed(&self, result: CallResult) {
        let error = ERRORS.iter().position(|kind| *kind == result);
        if let Some(counter) = error.and_then(|at| self.errors.get(at)) {
            counter.increment(1);
        }
    }
}

impl StoreMetrics {
    pub(super) fn register(store: &'static str) -> Self {
        names::describe();
        Self {
            store,
            operations: std::array::from_fn(|_| OnceLock::new()),
            connection_wait: OnceLock::new(),
            fill: OnceLock::new(),
            evicted: counter!(names::EVICTED, "store" => store),
            swept: counter!(names::SWEPT, "store" => store),
        }
    }

    #[inline]
    pub(super) fn called(&self, call: &StoreCall) {
        let operation = &self.operations[call.operation as usize];
        let operation = match operation.get() {
            Some(operation) => operation,
            None => self.register_operation(call.operation),
        };
        operation.duration.record(call.took);
        if call.result != CallResult::Done {
            operation.failed(call.result);
        }
    }

    #[cold]
    fn register_operation(&self, operation: Operation) -> &OperationMetrics {
        self.operations[operation as usize].get_or_init(|| {
            let (store, operation) = (self.store, operation.as_str());
            OperationMetrics {
                duration: histogram!(
                    names::STORE_DURATION, "store" => store, "operation" => operation
                ),
                errors: ERRORS.map(|kind| {
                    counter!(
                        names::STORE_ERRORS,
                        "store" => store, "operation" => operation, "kind" => kind.as_str()
                    )
                }),
            }
        })
    }

    pub(super) fn connection_awaited(&self, waited: Duration) {
        let wait = self
            .connection_wait
            .get_or_init(|| histogram!(names::CONNECTION_WAIT, "store" => self.store));
        wait.record(waited);
    }

    pub(super) fn filled(&self, bytes: u64, max_bytes: u64) {
        let (used, limit) = self.fill.get_or_init(|| {
            let store = self.store;
            (
                gauge!(names::STORE_BYTES, "store" => store),
                gauge!(names::STORE_LIMIT, "store" => store),
            )
        });
        #[expect(
            clippy::cast_precision_loss,
            reason = "a gauge is a float, and no store has 2^53 bytes"
        )]
        let (bytes, max_bytes) = (bytes as f64, max_bytes as f64);
        used.set(bytes);
        limit.set(max_bytes);
    }

    pub(super) fn evicted(&self, records: u64) {
        self.evicted.increment(records);
    }

    pub(super) fn swept(&self, records: u64) {
        self.swept.increment(records);
    }
}

impl std::fmt::Debug for StoreMetrics {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("StoreMetrics")
            .field("store", &self.store)
            .finish_non_exhaustive()
    }
}

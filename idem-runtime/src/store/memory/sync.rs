//! Locks and counters: those of the standard library, or of shuttle, which tries their schedules.

#[cfg(not(all(test, shuttle)))]
mod primitives {
    pub(crate) use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
    pub(crate) use std::sync::{Mutex, MutexGuard};

    pub(crate) fn may_switch() {}
}

#[cfg(all(test, shuttle))]
mod primitives {
    pub(crate) use shuttle::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
    pub(crate) use shuttle::sync::{Mutex, MutexGuard};

    /// What lies beside a call of moka, whose own locks shuttle does not see.
    pub(crate) fn may_switch() {
        // Not a yield: that would let the others go first.
        AtomicU64::new(0).load(Ordering::SeqCst);
    }
}

pub(super) use primitives::{AtomicU64, AtomicUsize, Mutex, MutexGuard, Ordering, may_switch};

//! Locks and counters: from the standard library, or from shuttle, which explores thread schedules.

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

    /// Marks a point next to a call of moka where shuttle may switch threads, because shuttle does
    /// not see moka's locks.
    pub(crate) fn may_switch() {
        // Not a yield, because a yield would always let the other threads run first.
        AtomicU64::new(0).load(Ordering::SeqCst);
    }
}

pub(super) use primitives::{AtomicU64, AtomicUsize, Mutex, MutexGuard, Ordering, may_switch};

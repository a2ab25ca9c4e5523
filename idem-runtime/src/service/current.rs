//! The settings of the layer whose request this thread polls.
//!
//! An endpoint with `key = …` needs the settings also for a request without the key header of the service.
//! The layer does not put its settings into the extensions of such a request, because an insertion costs as
//! much as the rest of the layer. Instead, the layer moves its settings here before each poll of the layers below, and
//! back afterwards.

use std::cell::Cell;
use std::mem::ManuallyDrop;

use crate::service::idempotency::Idempotency;

thread_local! {
    /// [`Current`] takes its value out again, so nothing is left to drop when the thread ends. Measured: the
    /// code of the standard library for such a drop takes 11 KB of a debug build.
    static CURRENT: Cell<ManuallyDrop<Option<Idempotency>>> =
        const { Cell::new(ManuallyDrop::new(None)) };
}

/// Returns the settings of the innermost layer that polls on this thread.
pub(crate) fn get() -> Option<Idempotency> {
    let current = CURRENT.take();
    let copy = current.as_ref().map(Idempotency::without_slot);
    CURRENT.set(current);
    copy
}

/// The settings of a layer are current until this is dropped. Then they go back to `place`, and those of an
/// outer layer are current again.
pub(super) struct Current<'a> {
    place: &'a mut Option<Idempotency>,
    outer: Option<Idempotency>,
}

impl<'a> Current<'a> {
    pub(super) fn enter(place: &'a mut Option<Idempotency>) -> Self {
        let outer = CURRENT.replace(ManuallyDrop::new(place.take()));
        Self {
            place,
            outer: ManuallyDrop::into_inner(outer),
        }
    }
}

impl Drop for Current<'_> {
    fn drop(&mut self) {
        let outer = ManuallyDrop::new(self.outer.take());
        *self.place = ManuallyDrop::into_inner(CURRENT.replace(outer));
    }
}

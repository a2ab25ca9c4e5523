//! The data of an example service.

use std::sync::{Arc, Mutex, PoisonError};

/// The data of a service, shared by its handlers.
#[derive(Debug, Default)]
pub(crate) struct Books<T>(Arc<Mutex<T>>);

impl<T> Clone for Books<T> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<T> Books<T> {
    pub(crate) fn open<R>(&self, read_or_write: impl FnOnce(&mut T) -> R) -> R {
        read_or_write(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

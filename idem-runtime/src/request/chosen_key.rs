//! Carries the key that an endpoint chooses to the arguments of its handler, which are extracted before.

use std::sync::{Arc, OnceLock};

/// The key of a request, once it is known. In the extensions of the request.
///
/// A batch endpoint may clone the extensions of its own request for each item. So a clone of an unset key is
/// another key: if the clones shared one, an item could get the key of another item.
#[derive(Debug, Default)]
pub(crate) struct ChosenKey(Arc<OnceLock<Box<str>>>);

impl Clone for ChosenKey {
    fn clone(&self) -> Self {
        match self.get() {
            Some(_) => self.share(),
            None => Self::default(),
        }
    }
}

impl ChosenKey {
    /// Returns the same key, for an argument of the handler.
    pub(crate) fn share(&self) -> Self {
        Self(self.0.clone())
    }

    pub(crate) fn set(&self, key: &str) {
        // A layer may call the handler twice with the same request, and so with the same key.
        let _ = self.0.set(key.into());
    }

    pub(crate) fn get(&self) -> Option<&str> {
        self.0.get().map(|key| &**key)
    }
}

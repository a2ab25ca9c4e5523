//! Carries the key that an endpoint chooses to the arguments of its handler, which are extracted before.

use std::sync::{Arc, OnceLock};

/// The key of a request, once it is known. In the extensions of the request.
#[derive(Clone, Debug, Default)]
pub(crate) struct ChosenKey(Arc<OnceLock<Box<str>>>);

impl ChosenKey {
    pub(crate) fn set(&self, key: &str) {
        // A layer may call the handler twice with the same request, and so with the same key.
        let _ = self.0.set(key.into());
    }

    pub(crate) fn get(&self) -> Option<&str> {
        self.0.get().map(|key| &**key)
    }
}

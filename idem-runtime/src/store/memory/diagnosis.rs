//! Checks the settings of the store.

use super::{Inner, OnFull};
use crate::store::Finding;

impl Inner {
    pub(super) fn diagnose(&self) -> Vec<Finding> {
        vec![
            Finding::warning(
                "durability",
                "the records are in the memory of one process; they are lost when it ends",
            ),
            match self.on_full {
                OnFull::Refuse => Finding::good("eviction", "a full store refuses new keys"),
                OnFull::EvictOldest => Finding::warning(
                    "eviction",
                    "a full store evicts its oldest records, and a retry of an evicted one runs again",
                ),
            },
            Finding::fill(self.budget.used() as u64, Some(self.budget.max() as u64)),
        ]
    }
}

//! Identifies who holds a claim.

use std::fmt;

use crate::request::record_id::RecordId;

/// Identifies who holds a claim. `complete`, `renew`, `release` and `abandon` require a holder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Holder {
    /// The record that is claimed.
    pub id: RecordId,
    /// The attempt that made the claim.
    pub owner: Owner,
    /// The fence that the store gave the claim.
    pub fence: u64,
}

/// Whether a transition took effect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Settled {
    /// The transition took effect.
    Done,
    /// The transition changed nothing, because the caller no longer holds the claim.
    Lost,
}

/// Identifies one attempt, uniquely across all processes.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Owner([u8; 16]);

impl Owner {
    /// A new owner, different from every other owner in this or another process.
    ///
    /// # Panics
    ///
    /// When the operating system cannot provide random bytes at the first call.
    #[must_use]
    pub fn unique() -> Self {
        use std::sync::OnceLock;
        use std::sync::atomic::{AtomicU64, Ordering};
        static PROCESS: OnceLock<u64> = OnceLock::new();
        static NEXT: AtomicU64 = AtomicU64::new(0);

        let mut bytes = [0; 16];
        let process = PROCESS.get_or_init(|| getrandom::u64().expect("the system has no entropy"));
        bytes[..8].copy_from_slice(&process.to_le_bytes());
        bytes[8..].copy_from_slice(&NEXT.fetch_add(1, Ordering::Relaxed).to_le_bytes());
        Self(bytes)
    }

    /// The bytes to store.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }

    /// An owner from stored bytes.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }
}

impl fmt::Debug for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Owner({:032x})", u128::from_be_bytes(self.0))
    }
}

//! The hash of record ids and scope ids.

use std::hash::Hasher;

/// A record id consists of digests, so its bytes are already a good hash. They are taken from the second
/// half, because the first half is the same for a whole scope.
#[derive(Debug, Default)]
pub(crate) struct DigestHasher(u64);

impl Hasher for DigestHasher {
    fn write(&mut self, bytes: &[u8]) {
        let (_, second_half) = bytes.split_at(bytes.len() / 2);
        if let Some((first, _)) = second_half.split_first_chunk() {
            self.0 = u64::from_le_bytes(*first);
        }
    }

    /// Ignores the length, because all digests have the same length.
    fn write_usize(&mut self, _: usize) {}

    fn finish(&self) -> u64 {
        self.0
    }
}

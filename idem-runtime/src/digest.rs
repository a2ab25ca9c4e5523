//! How parts enter a digest, so that no two sequences of them enter it alike.

use sha2::{Digest as _, Sha256};

/// A digest of 32 bytes that is fed piece by piece.
pub(crate) trait Absorb: Default {
    fn absorb(&mut self, bytes: &[u8]);

    fn finish(self) -> [u8; 32];

    /// Absorbs `part` behind its length (unsigned LEB128): most take one byte more.
    fn absorb_counted(&mut self, part: &[u8]) {
        // Both in one piece where they are short, for each piece has its price.
        let mut piece = [0; 64];
        let head = put_length(&mut piece, part.len());
        if let Some(tail) = piece.get_mut(head..head + part.len()) {
            tail.copy_from_slice(part);
            self.absorb(&piece[..head + part.len()]);
        } else {
            self.absorb(&piece[..head]);
            self.absorb(part);
        }
    }
}

/// Writes a length as unsigned LEB128, and says how many bytes that took.
fn put_length(bytes: &mut [u8], mut length: usize) -> usize {
    for (at, byte) in bytes.iter_mut().enumerate() {
        *byte = u8::try_from(length & 0x7f).unwrap_or_default();
        length >>= 7;
        if length == 0 {
            return at + 1;
        }
        *byte |= 0x80;
    }
    unreachable!("a length has at most 64 bits, which are ten bytes")
}

impl Absorb for Sha256 {
    fn absorb(&mut self, bytes: &[u8]) {
        self.update(bytes);
    }

    fn finish(self) -> [u8; 32] {
        self.finalize().into()
    }
}

#[cfg(feature = "blake3")]
impl Absorb for blake3::Hasher {
    fn absorb(&mut self, bytes: &[u8]) {
        self.update(bytes);
    }

    fn finish(self) -> [u8; 32] {
        self.finalize().into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Keeps what it absorbs, but for what does not fit.
    #[derive(Default)]
    struct Kept(Vec<u8>);

    impl Absorb for Kept {
        fn absorb(&mut self, bytes: &[u8]) {
            self.0.extend_from_slice(bytes);
        }

        fn finish(self) -> [u8; 32] {
            let mut kept = [0; 32];
            kept[..self.0.len().min(32)].copy_from_slice(&self.0[..self.0.len().min(32)]);
            kept
        }
    }

    #[test]
    fn a_length_takes_as_many_bytes_as_it_needs() {
        for (len, head) in [
            (0, &[0][..]),
            (1, &[1]),
            (127, &[127]),
            (128, &[0x80, 1]),
            (300, &[0xac, 2]),
            (16_384, &[0x80, 0x80, 1]),
        ] {
            let mut kept = Kept::default();
            kept.absorb_counted(&vec![b'x'; len]);
            assert_eq!(&kept.0[..head.len()], head);
            assert_eq!(kept.0.len(), head.len() + len);
        }
    }
}

//! Feeds parts into a digest, so that no two different sequences of parts give the same input.

use sha2::{Digest as _, Sha256};

/// A digest of 32 bytes that is updated piece by piece.
pub(crate) trait Digest: Default {
    fn update(&mut self, bytes: &[u8]);

    fn finish(self) -> [u8; 32];
}

impl Digest for Sha256 {
    fn update(&mut self, bytes: &[u8]) {
        sha2::Digest::update(self, bytes);
    }

    fn finish(self) -> [u8; 32] {
        self.finalize().into()
    }
}

#[cfg(feature = "blake3")]
impl Digest for blake3::Hasher {
    fn update(&mut self, bytes: &[u8]) {
        self.update(bytes);
    }

    fn finish(self) -> [u8; 32] {
        self.finalize().into()
    }
}

/// Short parts are buffered up to this size, because every `update` has a fixed cost.
const PIECE: usize = 128;

/// A digest with a buffer for short parts.
pub(crate) struct Absorber<D> {
    digest: D,
    piece: [u8; PIECE],
    len: usize,
}

impl<D: Digest> Absorber<D> {
    /// Starts with `bytes`, which bypass the buffer.
    pub(crate) fn begin(bytes: &[u8]) -> Self {
        let mut digest = D::default();
        digest.update(bytes);
        Self::resume(digest)
    }

    /// Continues a digest that has absorbed bytes already.
    pub(crate) fn resume(digest: D) -> Self {
        Self {
            digest,
            piece: [0; PIECE],
            len: 0,
        }
    }

    /// Absorbs bytes whose length follows from the rest of the input.
    #[inline]
    pub(crate) fn absorb(&mut self, bytes: &[u8]) {
        let end = self.len + bytes.len();
        if let Some(room) = self.piece.get_mut(self.len..end) {
            room.copy_from_slice(bytes);
            self.len = end;
        } else {
            self.flush();
            self.digest.update(bytes);
        }
    }

    /// Absorbs the length of `part` (unsigned LEB128) and then `part`. Most lengths take one byte.
    #[inline]
    pub(crate) fn absorb_counted(&mut self, part: &[u8]) {
        let [lowest, ..] = part.len().to_le_bytes();
        if part.len() <= 0x7f
            && let Some([first, room @ ..]) =
                self.piece.get_mut(self.len..self.len + 1 + part.len())
        {
            *first = lowest;
            room.copy_from_slice(part);
            self.len += 1 + part.len();
            return;
        }
        let mut length = part.len();
        while length > 0x7f {
            self.absorb(&[length.to_le_bytes()[0] | 0x80]);
            length >>= 7;
        }
        self.absorb(&[length.to_le_bytes()[0]]);
        self.absorb(part);
    }

    pub(crate) fn finish(mut self) -> [u8; 32] {
        self.flush();
        self.digest.finish()
    }

    fn flush(&mut self) {
        self.digest.update(&self.piece[..self.len]);
        self.len = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn absorbed(parts: &[&[u8]]) -> [u8; 32] {
        let mut absorber = Absorber::<Sha256>::begin(b"");
        for part in parts {
            absorber.absorb(part);
        }
        absorber.finish()
    }

    #[test]
    fn the_split_into_parts_does_not_change_the_digest() {
        let bytes: Vec<u8> = (0..=255).cycle().take(3 * PIECE).collect();
        let whole: [u8; 32] = Sha256::digest(&bytes).into();
        for cut in [0, 1, PIECE - 1, PIECE, PIECE + 1, 2 * PIECE, 3 * PIECE] {
            let (head, tail) = bytes.split_at(cut);
            assert_eq!(absorbed(&[head, tail]), whole, "cut at {cut}");
            assert_eq!(absorbed(&[b"", head, b"", tail]), whole, "cut at {cut}");
        }
        let short: Vec<&[u8]> = bytes.chunks(7).collect();
        assert_eq!(absorbed(&short), whole);
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
            let part = vec![b'x'; len];
            // With and without room for the part in the buffer.
            for before in [&[][..], &[b'y'; PIECE - 1]] {
                let mut counted = Absorber::<Sha256>::begin(b"");
                counted.absorb(before);
                counted.absorb_counted(&part);
                assert_eq!(counted.finish(), absorbed(&[before, head, &part]));
            }
        }
    }
}

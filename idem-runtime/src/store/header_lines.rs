//! The header lines in the bytes of a record.

use http::{HeaderName, header};

/// The bytes in front of a name and its value: their lengths.
pub(super) const LINE_HEAD: usize = 6;

/// Iterates over the header lines. Yields `Some(None)` once when a line runs past the end.
pub(super) struct Lines<'a> {
    bytes: &'a [u8],
    at: usize,
    left: u16,
}

impl<'a> Lines<'a> {
    /// The number of lines that a record declares, which begin at an offset.
    pub(super) const fn new(bytes: &'a [u8], at: usize, left: u16) -> Self {
        Self { bytes, at, left }
    }

    /// Where the next line begins, or the body.
    pub(super) const fn at(&self) -> usize {
        self.at
    }

    fn read(&mut self) -> Option<(&'a [u8], &'a [u8])> {
        let (name_len, rest) = self.bytes.get(self.at..)?.split_first_chunk::<2>()?;
        let (value_len, rest) = rest.split_first_chunk::<4>()?;
        let name_len = usize::from(u16::from_le_bytes(*name_len));
        let value_len = usize::try_from(u32::from_le_bytes(*value_len)).ok()?;
        let (name, rest) = rest.split_at_checked(name_len)?;
        let (value, _) = rest.split_at_checked(value_len)?;
        self.at += LINE_HEAD + name_len + value_len;
        Some((name, value))
    }
}

impl<'a> Iterator for Lines<'a> {
    type Item = Option<(&'a [u8], &'a [u8])>;

    fn next(&mut self) -> Option<Self::Item> {
        self.left = self.left.checked_sub(1)?;
        let line = self.read();
        if line.is_none() {
            self.left = 0;
        }
        Some(line)
    }
}

/// Whether a response can contain the name and the value.
pub(super) fn is_valid((name, value): (&[u8], &[u8])) -> bool {
    // Nearly every response has this header, and a comparison is cheaper than parsing.
    let is_content_type = name == header::CONTENT_TYPE.as_str().as_bytes();
    (is_content_type || HeaderName::from_bytes(name).is_ok()) && is_value(value)
}

/// The rule of `HeaderValue::from_bytes`, which would copy the value. No early exit, so that the compiler can vectorize
/// the loop.
fn is_value(value: &[u8]) -> bool {
    let is_permitted = |byte: u8| (byte >= b' ' && byte != 0x7f) || byte == b'\t';
    value
        .iter()
        .fold(true, |is_valid, byte| is_valid & is_permitted(*byte))
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[test]
    fn a_value_is_valid_when_the_http_crate_accepts_it() {
        for byte in 0..=u8::MAX {
            let value = [b'a', byte, b'b'];
            let expected = HeaderValue::from_bytes(&value).is_ok();
            assert_eq!(is_value(&value), expected, "byte {byte}");
        }
        assert!(is_value(b""));
    }

    #[test]
    fn a_name_is_valid_when_the_http_crate_accepts_it() {
        for name in ["content-type", "location", "x-trace", "X-Trace", "", "a b"] {
            let expected = HeaderName::from_bytes(name.as_bytes()).is_ok();
            assert_eq!(is_valid((name.as_bytes(), b"")), expected, "`{name}`");
        }
    }
}

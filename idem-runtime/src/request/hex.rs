//! Conversion of bytes to hexadecimal digits, and back.

use std::fmt::{self, Write};

/// Formats bytes as lowercase hexadecimal digits.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Hex<'a>(pub(crate) &'a [u8]);

impl Hex<'_> {
    /// Returns the digits. Written by hand, because the formatter is slower for each byte.
    pub(crate) fn digits(self) -> impl Iterator<Item = char> {
        const DIGITS: &[u8; 16] = b"0123456789abcdef";
        let digit = |at: u8| char::from(DIGITS[usize::from(at)]);
        let bytes = self.0.iter();
        bytes.flat_map(move |byte| [digit(byte >> 4), digit(byte & 15)])
    }
}

impl fmt::Display for Hex<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.digits().try_for_each(|digit| f.write_char(digit))
    }
}

/// Parses exactly `2 * N` digits, in lower or upper case.
pub(crate) fn parse<const N: usize>(text: &str) -> Option<[u8; N]> {
    let digits = text.as_bytes();
    if digits.len() != 2 * N {
        return None;
    }
    let mut bytes = [0; N];
    for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
        let value = |digit: u8| char::from(digit).to_digit(16);
        *byte = u8::try_from(value(pair[0])? << 4 | value(pair[1])?).ok()?;
    }
    Some(bytes)
}

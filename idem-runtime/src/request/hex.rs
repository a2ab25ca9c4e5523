//! Bytes as hexadecimal digits.

use std::fmt;

const DIGITS: &[u8; 16] = b"0123456789abcdef";

/// Writes bytes as lower-case digits, several bytes at once: a call of the formatter for each byte takes
/// longer than everything else.
pub(crate) fn write(f: &mut dyn fmt::Write, bytes: &[u8]) -> fmt::Result {
    const CHUNK: usize = 32;
    for chunk in bytes.chunks(CHUNK) {
        let mut digits = [0; 2 * CHUNK];
        for (at, byte) in chunk.iter().enumerate() {
            digits[2 * at] = DIGITS[usize::from(byte >> 4)];
            digits[2 * at + 1] = DIGITS[usize::from(byte & 15)];
        }
        // The digits are ASCII.
        f.write_str(std::str::from_utf8(&digits[..2 * chunk.len()]).unwrap_or_default())?;
    }
    Ok(())
}

/// Reads exactly `N` bytes from digits of either case.
pub(crate) fn read<const N: usize>(digits: &[u8]) -> Option<[u8; N]> {
    let mut bytes = [0; N];
    read_into(&mut bytes, digits).then_some(bytes)
}

fn read_into(bytes: &mut [u8], digits: &[u8]) -> bool {
    if digits.len() != 2 * bytes.len() {
        return false;
    }
    for (at, digit) in digits.iter().enumerate() {
        let Some(value) = value(*digit) else {
            return false;
        };
        bytes[at / 2] = bytes[at / 2] << 4 | value;
    }
    true
}

fn value(digit: u8) -> Option<u8> {
    match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        b'A'..=b'F' => Some(digit - b'A' + 10),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digits_are_written_and_read() {
        let bytes: [u8; 40] = std::array::from_fn(|n| n.wrapping_mul(7).to_le_bytes()[0]);
        let mut text = String::new();
        write(&mut text, &bytes).expect("a string takes everything");
        let expected: Vec<_> = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(text, expected.concat());
        assert_eq!(read(text.as_bytes()), Some(bytes));
        assert_eq!(read(text.to_uppercase().as_bytes()), Some(bytes));
    }

    #[test]
    fn other_text_is_refused() {
        for text in ["", "0", "0g", "000", " 0", "+1", "0x"] {
            assert_eq!(read::<1>(text.as_bytes()), None, "{text:?}");
        }
    }
}

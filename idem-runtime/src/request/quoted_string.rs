//! Parses a header that is one String of RFC 9651, such as `"k-1";note=1`.
//!
//! A parser for this one form, because a parser for all structured headers would be a tenth of the machine
//! code of this library. The tests compare it with the crate `sfv`.

use std::borrow::Cow;

/// Parses an Item whose value is a String (RFC 9651, sections 4.2.3 and 4.2.5). Its parameters are checked and
/// ignored. Returns `None` if the text is anything else. The text has no spaces around it.
pub(crate) fn parse(text: &[u8]) -> Option<Cow<'_, str>> {
    let mut parser = Parser { rest: text };
    let content = parser.string()?;
    parser.parameters()?;
    if !parser.rest.is_empty() {
        return None;
    }
    let content = std::str::from_utf8(content).ok()?;
    if !content.contains('\\') {
        return Some(Cow::Borrowed(content));
    }
    let mut unescaped = String::with_capacity(content.len());
    let mut chars = content.chars();
    while let Some(char) = chars.next() {
        unescaped.push(if char == '\\' { chars.next()? } else { char });
    }
    Some(Cow::Owned(unescaped))
}

struct Parser<'a> {
    rest: &'a [u8],
}

impl<'a> Parser<'a> {
    fn peek(&self) -> Option<u8> {
        self.rest.first().copied()
    }

    fn next(&mut self) -> Option<u8> {
        let (first, rest) = self.rest.split_first()?;
        self.rest = rest;
        Some(*first)
    }

    fn expect(&mut self, byte: u8) -> Option<()> {
        (self.next()? == byte).then_some(())
    }

    /// Skips the bytes that `is_part` accepts, and returns their number.
    fn skip(&mut self, is_part: fn(u8) -> bool) -> usize {
        let before = self.rest.len();
        while self.peek().is_some_and(is_part) {
            self.next();
        }
        before - self.rest.len()
    }

    /// Returns the text between the quotes, with its escapes.
    fn string(&mut self) -> Option<&'a [u8]> {
        self.expect(b'"')?;
        let text = self.rest;
        loop {
            match self.next()? {
                b'"' => return text.get(..text.len() - self.rest.len() - 1),
                b'\\' => _ = self.next().filter(|byte| matches!(byte, b'"' | b'\\'))?,
                b' '..=b'~' => {}
                _ => return None,
            }
        }
    }

    fn parameters(&mut self) -> Option<()> {
        while self.peek() == Some(b';') {
            self.next();
            self.skip(|byte| byte == b' ');
            self.next()
                .filter(|byte| byte.is_ascii_lowercase() || *byte == b'*')?;
            self.skip(|byte| {
                byte.is_ascii_lowercase()
                    || byte.is_ascii_digit()
                    || matches!(byte, b'_' | b'-' | b'.' | b'*')
            });
            if self.peek() == Some(b'=') {
                self.next();
                self.bare_item()?;
            }
        }
        Some(())
    }

    fn bare_item(&mut self) -> Option<()> {
        match self.peek()? {
            b'"' => _ = self.string()?,
            b'-' | b'0'..=b'9' => self.number(true)?,
            b'*' | b'a'..=b'z' | b'A'..=b'Z' => _ = self.skip(is_in_token),
            b':' => self.bytes()?,
            b'?' => {
                self.next();
                self.next().filter(|byte| matches!(byte, b'0' | b'1'))?;
            }
            b'@' => {
                self.next();
                self.number(false)?;
            }
            b'%' => self.display_string()?,
            _ => return None,
        }
        Some(())
    }

    /// An integer of at most 15 digits, or a decimal with at most 12 digits before the point and 1 to 3 digits
    /// after it.
    fn number(&mut self, may_be_decimal: bool) -> Option<()> {
        if self.peek() == Some(b'-') {
            self.next();
        }
        let whole = self.skip(|byte| byte.is_ascii_digit());
        if self.peek() != Some(b'.') {
            return matches!(whole, 1..=15).then_some(());
        }
        self.next();
        let fraction = self.skip(|byte| byte.is_ascii_digit());
        (may_be_decimal && matches!((whole, fraction), (1..=12, 1..=3))).then_some(())
    }

    /// Base64 between colons, with or without padding.
    fn bytes(&mut self) -> Option<()> {
        self.next();
        let is_digit = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/');
        let digits = self.skip(is_digit);
        let padding = self.skip(|byte| byte == b'=');
        self.expect(b':')?;
        let is_complete = match digits % 4 {
            0 => padding == 0,
            1 => false,
            over => padding <= 4 - over,
        };
        is_complete.then_some(())
    }

    /// UTF-8 between quotes, with percent-encoded bytes.
    fn display_string(&mut self) -> Option<()> {
        self.next();
        self.expect(b'"')?;
        let mut decoded = Vec::new();
        loop {
            let byte = match self.next()? {
                b'"' => return std::str::from_utf8(&decoded).is_ok().then_some(()),
                b'%' => self.hex_digit()? << 4 | self.hex_digit()?,
                byte @ b' '..=b'~' => byte,
                _ => return None,
            };
            decoded.push(byte);
        }
    }

    fn hex_digit(&mut self) -> Option<u8> {
        match self.next()? {
            byte @ b'0'..=b'9' => Some(byte - b'0'),
            byte @ b'a'..=b'f' => Some(byte - b'a' + 10),
            _ => None,
        }
    }
}

fn is_in_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~:/".contains(&byte)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use sfv::{BareItem, Item};

    use super::*;

    fn by_sfv(text: &[u8]) -> Option<String> {
        let item: Item = sfv::Parser::new(text).parse().ok()?;
        match item.bare_item {
            BareItem::String(content) => Some(content.into()),
            _ => None,
        }
    }

    fn parsed(text: &[u8]) -> Option<String> {
        parse(text).map(Cow::into_owned)
    }

    #[test]
    fn strings_with_every_kind_of_parameter_are_parsed() {
        for parameters in [
            "",
            ";a",
            ";  *a_-.*9=1",
            ";a=-123456789012345",
            ";a=123456789012.123",
            ";a=\"b\\\"\"",
            ";a=*b:/c",
            ";a=::",
            ";a=:YQ==:;b=:YQ:;c=:YR==:",
            ";a=?0;b=?1",
            ";a=@-1",
            ";a=%\"f%c3%bc\"",
        ] {
            let text = format!("\"k\\\\1\"{parameters}");
            assert_eq!(parsed(text.as_bytes()).as_deref(), Some("k\\1"), "{text}");
            assert_eq!(by_sfv(text.as_bytes()).as_deref(), Some("k\\1"), "{text}");
        }
    }

    #[test]
    fn anything_else_is_refused() {
        for text in [
            "",
            "k",
            "\"",
            "\"k",
            "\"k\\\"",
            "\"\\k\"",
            "\"\x7f\"",
            "\"ü\"",
            "\"k\",\"l\"",
            "\"k\" l",
            "\"k\" ;a",
            "\"k\";",
            "\"k\";A",
            "\"k\";9",
            "\"k\";a=",
            "\"k\";a=-",
            "\"k\";a=1234567890123456",
            "\"k\";a=1234567890123.1",
            "\"k\";a=1.",
            "\"k\";a=1.1234",
            "\"k\";a=.1",
            "\"k\";a=?2",
            "\"k\";a=?",
            "\"k\";a=@1.5",
            "\"k\";a=@",
            "\"k\";a=:Y:",
            "\"k\";a=:YQ",
            "\"k\";a=:YQ=Q:",
            "\"k\";a=:YQ===:",
            "\"k\";a=%\"%c3\"",
            "\"k\";a=%\"%C3%BC\"",
            "\"k\";a=%\"%c\"",
            "\"k\";a=%a",
            "\"k\";a=(1)",
        ] {
            assert_eq!(parsed(text.as_bytes()), None, "{text}");
            assert_eq!(by_sfv(text.as_bytes()), None, "{text}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(4096))]

        #[test]
        fn the_result_equals_that_of_sfv(
            parts in prop::collection::vec(
                prop::sample::select(vec![
                    "\"", "\"", "\\", ";", ";", " ", "a", "b=", "*", "=", "1", "23", ".", "-", ":", "YQ", "?1", "@",
                    "%", "%\"", "%c3%bc", "%7f", ",", "(", "\t", "ü", "/", "~", "==",
                ]),
                0..12,
            ),
            is_string in any::<bool>(),
        ) {
            let start = if is_string { "\"k\";a=" } else { "" };
            let text = start.to_owned() + &parts.concat();
            let text = text.as_bytes().trim_ascii();
            prop_assert_eq!(parsed(text), by_sfv(text));
        }
    }
}

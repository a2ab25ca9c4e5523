//! Parses a String of RFC 9651, which is one kind of Item in a structured header.
//!
//! The crate `sfv` parses all structured headers, and adds 159 KB to an empty program in a debug build. A test compares
//! both parsers.

use std::borrow::Cow;

/// Reads an Item whose value is a String (section 3.3.3). Its parameters must be valid, and are ignored. `None` means
/// that the line is anything else. The line has no whitespace around it.
pub(crate) fn string(line: &[u8]) -> Option<Cow<'_, str>> {
    let mut cursor = Cursor { rest: line };
    if !cursor.skip(b'"') {
        return None;
    }
    let text = cursor.string()?;
    cursor.parameters()?;
    cursor.rest.is_empty().then_some(text)
}

/// The part of a line that is not parsed yet. A method returns `None` when the line is not valid.
struct Cursor<'a> {
    rest: &'a [u8],
}

impl<'a> Cursor<'a> {
    fn next(&mut self) -> Option<u8> {
        let (first, rest) = self.rest.split_first()?;
        self.rest = rest;
        Some(*first)
    }

    /// Skips `byte` if it is next, and returns whether it was.
    fn skip(&mut self, byte: u8) -> bool {
        let is_next = self.rest.first() == Some(&byte);
        if is_next {
            self.next();
        }
        is_next
    }

    /// Skips all bytes that fit, and returns how many there were.
    fn skip_all(&mut self, fits: fn(u8) -> bool) -> usize {
        let mut skipped = 0;
        while self.rest.first().is_some_and(|byte| fits(*byte)) {
            self.next();
            skipped += 1;
        }
        skipped
    }

    /// Section 4.2.5, after the opening quote.
    fn string(&mut self) -> Option<Cow<'a, str>> {
        let start = self.rest;
        let mut has_escapes = false;
        loop {
            match self.next()? {
                b'"' => break,
                b'\\' if matches!(self.next()?, b'"' | b'\\') => has_escapes = true,
                b'\\' => return None,
                b' '..=b'~' => {}
                _ => return None,
            }
        }
        let text = std::str::from_utf8(&start[..start.len() - self.rest.len() - 1]).ok()?;
        if !has_escapes {
            return Some(Cow::Borrowed(text));
        }
        let mut unescaped = String::with_capacity(text.len());
        let mut chars = text.chars();
        while let Some(char) = chars.next() {
            unescaped.push(if char == '\\' { chars.next()? } else { char });
        }
        Some(Cow::Owned(unescaped))
    }

    /// Section 4.2.3.2.
    fn parameters(&mut self) -> Option<()> {
        while self.skip(b';') {
            self.skip_all(|byte| byte == b' ');
            if !matches!(self.next()?, b'a'..=b'z' | b'*') {
                return None;
            }
            self.skip_all(
                |byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'_' | b'-' | b'.' | b'*'),
            );
            if self.skip(b'=') {
                self.bare_item()?;
            }
        }
        Some(())
    }

    /// Section 4.2.3.1.
    fn bare_item(&mut self) -> Option<()> {
        if matches!(self.rest.first()?, b'-' | b'0'..=b'9') {
            return self.number(true);
        }
        match self.next()? {
            b'"' => self.string().map(drop),
            b'?' => matches!(self.next()?, b'0' | b'1').then_some(()),
            b':' => self.byte_sequence(),
            b'%' => self.display_string(),
            b'@' => self.number(false),
            byte if byte.is_ascii_alphabetic() || byte == b'*' => {
                self.skip_all(is_in_token);
                Some(())
            }
            _ => None,
        }
    }

    /// Sections 4.2.4 and 4.2.9.
    fn number(&mut self, may_have_decimals: bool) -> Option<()> {
        self.skip(b'-');
        let digits = self.skip_all(|byte| byte.is_ascii_digit());
        if may_have_decimals && self.skip(b'.') {
            let decimals = self.skip_all(|byte| byte.is_ascii_digit());
            return matches!((digits, decimals), (1..=12, 1..=3)).then_some(());
        }
        matches!(digits, 1..=15).then_some(())
    }

    /// Section 4.2.7, after the first colon. Base64 without its padding is valid too.
    fn byte_sequence(&mut self) -> Option<()> {
        let digits =
            self.skip_all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/'));
        let padding = self.skip_all(|byte| byte == b'=');
        let is_base64 = matches!((digits % 4, padding), (0, 0) | (2, ..=2) | (3, ..=1));
        (self.skip(b':') && is_base64).then_some(())
    }

    /// Section 4.2.10, after the percent sign.
    fn display_string(&mut self) -> Option<()> {
        let mut decoded = Vec::new();
        if !self.skip(b'"') {
            return None;
        }
        loop {
            decoded.push(match self.next()? {
                b'"' => return std::str::from_utf8(&decoded).is_ok().then_some(()),
                b'%' => self.hex_digit()? << 4 | self.hex_digit()?,
                byte @ b' '..=b'~' => byte,
                _ => return None,
            });
        }
    }

    fn hex_digit(&mut self) -> Option<u8> {
        match self.next()? {
            digit @ b'0'..=b'9' => Some(digit - b'0'),
            digit @ b'a'..=b'f' => Some(digit - b'a' + 10),
            _ => None,
        }
    }
}

/// Section 4.2.6.
fn is_in_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~:/".contains(&byte)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_string_is_unescaped_and_its_parameters_are_checked() {
        for (line, expected) in [
            (r#""k""#, Some("k")),
            (r#""""#, Some("")),
            (r#""a\"b\\""#, Some(r#"a"b\"#)),
            (
                r#""k";p;q=?1;r=-1.250;s=:YQ==:;t=@-1;u=%"%c3%a9 ";v=*a/b;w="\"";x=  "#,
                None,
            ),
            (
                r#""k";p;q=?1;r=-1.250;s=:YQ==:;t=@-1;u=%"%c3%a9 ";v=*a/b;w="\"""#,
                Some("k"),
            ),
            (r#""k"; a-*=1; a-*=2"#, Some("k")),
            (r#""k" ;a"#, None),
            (r#""k";A"#, None),
            (r#""k";a=1234567890123.1"#, None),
            (r#""k";a=%"%C3%A9""#, None),
            (r#""k";a=%"%c3""#, None),
            (r#""k", "k""#, None),
            (r#""k"#, None),
            (r#""\k""#, None),
            ("\"\u{e9}\"", None),
            ("k", None),
            ("", None),
        ] {
            assert_eq!(string(line.as_bytes()).as_deref(), expected, "{line}");
        }
    }

    #[test]
    fn a_string_without_escapes_is_not_copied() {
        assert!(matches!(string(br#""k";a"#), Some(Cow::Borrowed("k"))));
    }
}

//! Reads the parts of a JSON text: strings, numbers, literals and white space.

use std::borrow::Cow;

use super::kind::{LITERAL, NUMBER, STRING};

/// Reads RFC 8259 values. Strings are checked and unescaped by `serde_json`.
pub(super) struct Parser<'a> {
    pub(super) text: &'a str,
    pub(super) at: usize,
}

impl<'a> Parser<'a> {
    /// Reads a value that is neither an array nor an object. Returns its kind and its text.
    pub(super) fn scalar(&mut self) -> Option<(u8, Cow<'a, str>)> {
        match self.peek()? {
            b'"' => self.string().map(|text| (STRING, text)),
            b'-' | b'0'..=b'9' => self.number().map(|text| (NUMBER, text.into())),
            _ => ["true", "false", "null"]
                .into_iter()
                .find(|literal| self.text[self.at..].starts_with(literal))
                .map(|literal| {
                    self.at += literal.len();
                    (LITERAL, literal.into())
                }),
        }
    }

    pub(super) fn place(&self) -> Option<u32> {
        u32::try_from(self.at).ok()
    }

    pub(super) fn string(&mut self) -> Option<Cow<'a, str>> {
        let start = self.at;
        self.expect(b'"')?;
        let mut has_escapes = false;
        loop {
            match self.peek()? {
                b'"' => break,
                b'\\' => {
                    has_escapes = true;
                    self.at += 2;
                }
                0..=0x1f => return None,
                _ => self.at += 1,
            }
        }
        self.at += 1;
        if has_escapes {
            serde_json::from_str(self.text.get(start..self.at)?)
                .ok()
                .map(Cow::Owned)
        } else {
            self.text.get(start + 1..self.at - 1).map(Cow::Borrowed)
        }
    }

    fn number(&mut self) -> Option<&'a str> {
        let start = self.at;
        if self.peek() == Some(b'-') {
            self.at += 1;
        }
        if self.peek()? == b'0' {
            self.at += 1;
        } else {
            self.digits()?;
        }
        if self.peek() == Some(b'.') {
            self.at += 1;
            self.digits()?;
        }
        if let Some(b'e' | b'E') = self.peek() {
            self.at += 1;
            if let Some(b'+' | b'-') = self.peek() {
                self.at += 1;
            }
            self.digits()?;
        }
        Some(&self.text[start..self.at])
    }

    fn digits(&mut self) -> Option<()> {
        let start = self.at;
        while self.peek().is_some_and(|byte| byte.is_ascii_digit()) {
            self.at += 1;
        }
        (self.at > start).then_some(())
    }

    pub(super) fn expect(&mut self, byte: u8) -> Option<()> {
        (self.peek()? == byte).then(|| self.at += 1)
    }

    pub(super) fn skip_white_space(&mut self) {
        while let Some(b' ' | b'\t' | b'\n' | b'\r') = self.peek() {
            self.at += 1;
        }
    }

    pub(super) fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::value;

    #[test]
    fn escapes_do_not_change_the_form() {
        assert_eq!(value(br#""\u0061\/""#), value(br#""a/""#));
    }
}

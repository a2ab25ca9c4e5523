//! One form for all spellings of a JSON value, for fingerprints.
//!
//! White space, the order of members and the escapes in strings do not count. Numbers count as they
//! are written: `1`, `1.0` and `1e0` differ, so that no rounding to doubles makes two amounts equal.
//! What is not exactly one JSON value, says a member twice or nests too deeply has no such form, and
//! its caller falls back to the bytes.

use std::borrow::Cow;

/// Deeper than any request body of a person's making, and shallow enough for any stack.
const MAX_DEPTH: usize = 128;

/// The canonical form of the whole body.
pub(crate) fn value(body: &[u8]) -> Option<Vec<u8>> {
    let mut form = Vec::with_capacity(body.len());
    Value::parse(body)?.write(&mut form);
    Some(form)
}

/// The canonical forms of the values at JSON pointers (RFC 6901), in their order.
pub(crate) fn values_at(body: &[u8], pointers: &[&str]) -> Option<Vec<u8>> {
    let root = Value::parse(body)?;
    let mut form = Vec::new();
    for pointer in pointers {
        match root.at(pointer) {
            Some(value) => value.write(&mut form),
            None => form.push(ABSENT),
        }
    }
    Some(form)
}

// Each form begins with its kind; texts and sequences carry their length. So no two values, and no
// two sequences of values, are written alike.
const ABSENT: u8 = 0;
const LITERAL: u8 = 1;
const NUMBER: u8 = 2;
const STRING: u8 = 3;
const ARRAY: u8 = 4;
const OBJECT: u8 = 5;

enum Value<'a> {
    Literal(&'a str),
    Number(&'a str),
    String(Cow<'a, str>),
    Array(Vec<Value<'a>>),
    /// Sorted by name, each name once.
    Object(Vec<(Cow<'a, str>, Value<'a>)>),
}

impl<'a> Value<'a> {
    fn parse(body: &'a [u8]) -> Option<Self> {
        let mut parser = Parser {
            text: std::str::from_utf8(body).ok()?,
            at: 0,
        };
        let value = parser.value(0)?;
        parser.skip_white_space();
        (parser.at == parser.text.len()).then_some(value)
    }

    fn at(&self, pointer: &str) -> Option<&Self> {
        let mut steps = pointer.split('/');
        // A pointer is empty, for the whole value, or begins with a slash.
        if !steps.next()?.is_empty() {
            return None;
        }
        steps.try_fold(self, |value, step| match value {
            Self::Object(members) => {
                let name = step.replace("~1", "/").replace("~0", "~");
                let found = members.binary_search_by(|(other, _)| (**other).cmp(name.as_str()));
                Some(&members[found.ok()?].1)
            }
            Self::Array(items) => {
                let is_index = step == "0" || !step.starts_with(['0', '+']);
                items.get(step.parse::<usize>().ok().filter(|_| is_index)?)
            }
            _ => None,
        })
    }

    fn write(&self, form: &mut Vec<u8>) {
        match self {
            Self::Literal(text) => write_text(LITERAL, text, form),
            Self::Number(text) => write_text(NUMBER, text, form),
            Self::String(text) => write_text(STRING, text, form),
            Self::Array(items) => {
                write_head(ARRAY, items.len(), form);
                for item in items {
                    item.write(form);
                }
            }
            Self::Object(members) => {
                write_head(OBJECT, members.len(), form);
                for (name, value) in members {
                    write_text(STRING, name, form);
                    value.write(form);
                }
            }
        }
    }
}

fn write_head(kind: u8, len: usize, form: &mut Vec<u8>) {
    form.push(kind);
    form.extend_from_slice(&(len as u64).to_le_bytes());
}

fn write_text(kind: u8, text: &str, form: &mut Vec<u8>) {
    write_head(kind, text.len(), form);
    form.extend_from_slice(text.as_bytes());
}

/// Reads RFC 8259 values. Strings are checked and unescaped by `serde_json`.
struct Parser<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Parser<'a> {
    fn value(&mut self, depth: usize) -> Option<Value<'a>> {
        if depth > MAX_DEPTH {
            return None;
        }
        self.skip_white_space();
        match self.peek()? {
            b'{' => self.object(depth),
            b'[' => self.array(depth),
            b'"' => self.string().map(Value::String),
            b'-' | b'0'..=b'9' => self.number().map(Value::Number),
            _ => ["true", "false", "null"]
                .into_iter()
                .find(|literal| self.text[self.at..].starts_with(literal))
                .map(|literal| {
                    self.at += literal.len();
                    Value::Literal(literal)
                }),
        }
    }

    fn object(&mut self, depth: usize) -> Option<Value<'a>> {
        let mut members = Vec::new();
        self.sequence(b'}', |parser| {
            let name = parser.string()?;
            parser.skip_white_space();
            parser.expect(b':')?;
            members.push((name, parser.value(depth + 1)?));
            Some(())
        })?;
        members.sort_by(|(one, _), (other, _)| one.cmp(other));
        let is_doubled = members.windows(2).any(|pair| pair[0].0 == pair[1].0);
        (!is_doubled).then_some(Value::Object(members))
    }

    fn array(&mut self, depth: usize) -> Option<Value<'a>> {
        let mut items = Vec::new();
        self.sequence(b']', |parser| {
            items.push(parser.value(depth + 1)?);
            Some(())
        })?;
        Some(Value::Array(items))
    }

    /// Reads what stands between an opening bracket and `close`, separated by commas.
    fn sequence(&mut self, close: u8, mut item: impl FnMut(&mut Self) -> Option<()>) -> Option<()> {
        self.at += 1;
        self.skip_white_space();
        if self.peek()? == close {
            self.at += 1;
            return Some(());
        }
        loop {
            self.skip_white_space();
            item(self)?;
            self.skip_white_space();
            let byte = self.peek()?;
            self.at += 1;
            if byte == close {
                return Some(());
            }
            if byte != b',' {
                return None;
            }
        }
    }

    fn string(&mut self) -> Option<Cow<'a, str>> {
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

    fn expect(&mut self, byte: u8) -> Option<()> {
        (self.peek()? == byte).then(|| self.at += 1)
    }

    fn skip_white_space(&mut self) {
        while let Some(b' ' | b'\t' | b'\n' | b'\r') = self.peek() {
            self.at += 1;
        }
    }

    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_serde_json_reads_has_a_form_and_nothing_else() {
        for good in [
            "0",
            "-0",
            "1.5e+3",
            "1E5",
            "\"\"",
            "\"a\\u00e9\\n\"",
            "true",
            "null",
            "[]",
            "{}",
            " [ 1 , 2 ] ",
            "{\"a\":{\"b\":[{}]}}",
            "\"\\ud83d\\ude00\"",
        ] {
            assert!(
                serde_json::from_str::<serde_json::Value>(good).is_ok(),
                "{good}"
            );
            assert!(value(good.as_bytes()).is_some(), "{good}");
        }
        for bad in [
            "",
            " ",
            "01",
            "1.",
            ".5",
            "1e",
            "-",
            "+1",
            "nul",
            "tru e",
            "[1,]",
            "[,]",
            "[1 2]",
            "{\"a\"}",
            "{\"a\":1,}",
            "{a:1}",
            "\"",
            "\"\\",
            "\"\\x\"",
            "\"\n\"",
            "\"\\ud83d\"",
            "1 2",
            "[",
            "{",
            "{\"a\":",
            "'a'",
        ] {
            assert!(
                serde_json::from_str::<serde_json::Value>(bad).is_err(),
                "{bad}"
            );
            assert!(value(bad.as_bytes()).is_none(), "{bad}");
        }
        assert!(value(b"\"\xff\"").is_none());
    }

    #[test]
    fn a_doubled_member_has_no_form_however_it_is_escaped() {
        assert!(value(br#"{"a":1,"a":1}"#).is_none());
        assert!(value(br#"{"a":1,"\u0061":1}"#).is_none());
        assert!(value(br#"[{"b":{"a":1,"a":2}}]"#).is_none());
    }

    #[test]
    fn escapes_do_not_count() {
        assert_eq!(value(br#""\u0061\/""#), value(br#""a/""#));
    }

    #[test]
    fn depth_is_bounded() {
        let arrays = |depth| [vec![b'['; depth], vec![b']'; depth]].concat();
        let objects = |depth| [b"{\"a\":".repeat(depth), vec![b'0'], vec![b'}'; depth]].concat();
        // The outermost value has depth 0, and so has 128 others in it at most.
        assert!(value(&arrays(129)).is_some());
        assert!(value(&arrays(130)).is_none());
        assert!(value(&objects(128)).is_some());
        assert!(value(&objects(129)).is_none());
        assert!(value(&vec![b'['; 2_000_000]).is_none());
    }

    #[test]
    fn pointers_follow_rfc_6901() {
        let body = br#"{"":1,"a/b":2,"m~n":3,"l":[4,5],"0":6,"~1":7,"/":8}"#;
        let at = |pointer| values_at(body, &[pointer]);
        let is = |text: &str| {
            let mut form = Vec::new();
            write_text(NUMBER, text, &mut form);
            Some(form)
        };
        assert_eq!(at("/"), is("1"));
        assert_eq!(at("/a~1b"), is("2"));
        assert_eq!(at("/m~0n"), is("3"));
        // `~01` is an escaped `~` and a `1` (section 4), not an escaped `/`.
        assert_eq!(at("/~01"), is("7"));
        assert_eq!(at("/~1"), is("8"));
        assert_eq!(at("/l/1"), is("5"));
        assert_eq!(at("/0"), is("6"));
        assert_eq!(at(""), value(body));
        for nowhere in ["/l/01", "/l/+1", "/l/2", "/l/-", "/x", "/l/0/x", "x"] {
            assert_eq!(at(nowhere), Some(vec![ABSENT]), "{nowhere}");
        }
    }
}

//! Checks that a body is one JSON value, and finds its arrays, its objects and their members.

use std::borrow::Cow;
use std::ops::Range;

use super::parser::Parser;

/// Deeper than any real request body, and shallow enough not to overflow the stack.
const MAX_DEPTH: usize = 128;

/// A body that is exactly one JSON value, and the positions of its arrays and objects.
///
/// The form is written from the text. The index takes eight bytes for each array or object, and
/// twelve bytes for each member of an object. A tree of values would take many times the size of
/// the body.
pub(crate) struct Document<'a> {
    text: &'a str,
    /// In the order of their opening brackets.
    pub(super) containers: Vec<Container>,
    pub(super) members: Vec<Member>,
}

/// An array or an object.
#[derive(Clone, Copy)]
pub(super) struct Container {
    /// The number of items or members.
    pub(super) len: u32,
    /// The index in [`Document::members`] of the first member of an object.
    first: u32,
}

/// One member of an object. The members of one object are adjacent and sorted by name.
#[derive(Clone, Copy)]
pub(super) struct Member {
    /// The position of the name in the text.
    name: u32,
    pub(super) value: Place,
}

/// The position of a value: the offset in the text, and the number of containers that open before
/// it.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Place {
    pub(super) at: u32,
    pub(super) container: u32,
}

impl<'a> Document<'a> {
    /// Returns `None` if the body has no canonical form.
    pub(crate) fn parse(body: &'a [u8]) -> Option<Self> {
        // A `Place` stores positions in four bytes.
        u32::try_from(body.len()).ok()?;
        let text = std::str::from_utf8(body).ok()?;
        let mut index = Index {
            parser: Parser { text, at: 0 },
            containers: Vec::new(),
            members: Vec::new(),
            open: Vec::new(),
        };
        index.value(0)?;
        index.parser.skip_white_space();
        (index.parser.at == text.len()).then_some(Self {
            text,
            containers: index.containers,
            members: index.members,
        })
    }

    pub(super) fn parser(&self, place: Place) -> Parser<'a> {
        let at = place.at as usize;
        let mut parser = Parser {
            text: self.text,
            at,
        };
        parser.skip_white_space();
        parser
    }

    pub(super) fn name(&self, member: &Member) -> Cow<'a, str> {
        let at = member.name as usize;
        let name = Parser {
            text: self.text,
            at,
        }
        .string();
        name.unwrap_or_default()
    }
}

impl Container {
    pub(super) fn members(self) -> Range<usize> {
        self.first as usize..(self.first + self.len) as usize
    }
}

/// Checks the syntax of a body, and finds its containers.
struct Index<'a> {
    parser: Parser<'a>,
    containers: Vec<Container>,
    members: Vec<Member>,
    /// The members of the objects that are still open.
    open: Vec<Member>,
}

impl Index<'_> {
    fn value(&mut self, depth: usize) -> Option<()> {
        if depth > MAX_DEPTH {
            return None;
        }
        self.parser.skip_white_space();
        match self.parser.peek()? {
            b'{' => self.object(depth),
            b'[' => self.array(depth),
            _ => self.parser.scalar().map(drop),
        }
    }

    fn array(&mut self, depth: usize) -> Option<()> {
        let opened = self.opened();
        let mut len = 0;
        self.sequence(b']', |index| {
            len += 1;
            index.value(depth + 1)
        })?;
        self.containers[opened].len = len;
        Some(())
    }

    fn object(&mut self, depth: usize) -> Option<()> {
        let opened = self.opened();
        let first_open = self.open.len();
        let mut has_escapes = false;
        self.sequence(b'}', |index| {
            let name = index.parser.place()?;
            has_escapes |= matches!(index.parser.string()?, Cow::Owned(_));
            index.parser.skip_white_space();
            index.parser.expect(b':')?;
            let value = Place {
                at: index.parser.place()?,
                container: u32::try_from(index.containers.len()).ok()?,
            };
            index.open.push(Member { name, value });
            index.value(depth + 1)
        })?;
        let text = self.parser.text;
        let name = |member: &Member| {
            let at = member.name as usize;
            Parser { text, at }.string().unwrap_or_default()
        };
        let members = &mut self.open[first_open..];
        if has_escapes {
            // Unescaping a name allocates, so each name is unescaped once instead of once per
            // comparison.
            members.sort_by_cached_key(name);
        } else {
            members.sort_unstable_by(|one, other| name(one).cmp(&name(other)));
        }
        if members
            .windows(2)
            .any(|pair| name(&pair[0]) == name(&pair[1]))
        {
            return None;
        }
        self.containers[opened] = Container {
            len: u32::try_from(members.len()).ok()?,
            first: u32::try_from(self.members.len()).ok()?,
        };
        self.members.extend(self.open.drain(first_open..));
        Some(())
    }

    fn opened(&mut self) -> usize {
        self.containers.push(Container { len: 0, first: 0 });
        self.containers.len() - 1
    }

    /// Reads the items between an opening bracket and `close`, separated by commas.
    fn sequence(&mut self, close: u8, mut item: impl FnMut(&mut Self) -> Option<()>) -> Option<()> {
        self.parser.at += 1;
        self.parser.skip_white_space();
        if self.parser.peek()? == close {
            self.parser.at += 1;
            return Some(());
        }
        loop {
            self.parser.skip_white_space();
            item(self)?;
            self.parser.skip_white_space();
            let byte = self.parser.peek()?;
            self.parser.at += 1;
            if byte == close {
                return Some(());
            }
            if byte != b',' {
                return None;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::value;
    use super::*;

    #[test]
    fn exactly_the_texts_that_serde_json_accepts_have_a_form() {
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
    fn duplicate_members_are_found_even_when_escaped() {
        assert!(value(br#"{"a":1,"a":1}"#).is_none());
        assert!(value(br#"{"a":1,"\u0061":1}"#).is_none());
        assert!(value(br#"[{"b":{"a":1,"a":2}}]"#).is_none());
    }

    #[test]
    fn depth_is_bounded() {
        let arrays = |depth| [vec![b'['; depth], vec![b']'; depth]].concat();
        let objects = |depth| [b"{\"a\":".repeat(depth), vec![b'0'], vec![b'}'; depth]].concat();
        // The outermost value has depth 0, so it can contain at most 128 nested levels.
        assert!(value(&arrays(129)).is_some());
        assert!(value(&arrays(130)).is_none());
        assert!(value(&objects(128)).is_some());
        assert!(value(&objects(129)).is_none());
        assert!(value(&vec![b'['; 2_000_000]).is_none());
    }

    /// A tree of values would take up to fifty times the size of the body.
    #[test]
    fn the_index_of_a_document_is_at_most_six_times_its_body() {
        for item in ["[]", "{}", "0", "\"\"", "{\"\":0}"] {
            let body = format!("[{}0]", format!("{item},").repeat(100_000));
            let document = Document::parse(body.as_bytes()).expect("the body has a form");
            let kept = document.containers.capacity() * size_of::<Container>()
                + document.members.capacity() * size_of::<Member>();
            assert!(kept <= 6 * body.len(), "{item}: {kept} of {}", body.len());
        }
    }
}

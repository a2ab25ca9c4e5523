//! Writes the canonical form of a JSON value, for fingerprints. All spellings of a value have the
//! same form.
//!
//! White space, the order of members, escapes in strings and the spelling of numbers do not change the
//! form: `1`, `1.0` and `10e-1` are equal. Numbers are compared exactly, so that rounding to a double
//! cannot make two amounts equal. A body has no canonical form if it is not exactly one JSON value,
//! repeats a member, or is nested too deeply. The caller then uses the bytes.

use std::borrow::Cow;
use std::ops::Range;

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
    containers: Vec<Container>,
    members: Vec<Member>,
}

/// An array or an object.
#[derive(Clone, Copy)]
struct Container {
    /// The number of items or members.
    len: u32,
    /// The index in [`Document::members`] of the first member of an object.
    first: u32,
}

/// One member of an object. The members of one object are adjacent and sorted by name.
#[derive(Clone, Copy)]
struct Member {
    /// The position of the name in the text.
    name: u32,
    value: Place,
}

/// The position of a value: the offset in the text, and the number of containers that open before
/// it.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
struct Place {
    at: u32,
    container: u32,
}

// Each form starts with its kind, and texts and sequences carry their length. So two different
// values, or two different sequences of values, never have the same form.
const ABSENT: u8 = 0;
const LITERAL: u8 = 1;
const NUMBER: u8 = 2;
const STRING: u8 = 3;
const ARRAY: u8 = 4;
const OBJECT: u8 = 5;
/// A number whose exponent has more than 18 digits, as text.
const HUGE_NUMBER: u8 = 6;

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

    /// Writes the canonical form of the whole body.
    pub(crate) fn write(&self, out: &mut (impl FnMut(&[u8]) + ?Sized)) {
        self.writer(Place::default(), out).value();
    }

    /// Writes the canonical forms of the values at these JSON pointers (RFC 6901), in the order of
    /// the pointers.
    pub(crate) fn write_at(&self, pointers: &[&str], out: &mut (impl FnMut(&[u8]) + ?Sized)) {
        for pointer in pointers {
            if let Some(place) = self.find(pointer) {
                self.writer(place, out).value();
            } else {
                out(&[ABSENT]);
            }
        }
    }

    fn writer<'w, W: FnMut(&[u8]) + ?Sized>(
        &'w self,
        place: Place,
        out: &'w mut W,
    ) -> Writer<'w, 'a, W> {
        Writer {
            document: self,
            parser: self.parser(place),
            container: place.container as usize,
            out,
        }
    }

    fn parser(&self, place: Place) -> Parser<'a> {
        let at = place.at as usize;
        let mut parser = Parser {
            text: self.text,
            at,
        };
        parser.skip_white_space();
        parser
    }

    fn find(&self, pointer: &str) -> Option<Place> {
        let mut steps = pointer.split('/');
        // A pointer starts with a slash, or is empty and points to the whole value.
        if !steps.next()?.is_empty() {
            return None;
        }
        steps.try_fold(Place::default(), |place, step| {
            match self.parser(place).peek()? {
                b'{' => {
                    let name = step.replace("~1", "/").replace("~0", "~");
                    let members =
                        &self.members[self.containers[place.container as usize].members()];
                    let found = members
                        .binary_search_by(|member| (*self.name(member)).cmp(name.as_str()))
                        .ok()?;
                    Some(members[found].value)
                }
                b'[' => {
                    let is_index = step == "0" || !step.starts_with(['0', '+']);
                    let index = step.parse::<u32>().ok().filter(|_| is_index)?;
                    self.item(place, index)
                }
                _ => None,
            }
        })
    }

    /// Returns the place of an item of the array at `place`.
    fn item(&self, place: Place, index: u32) -> Option<Place> {
        if index >= self.containers[place.container as usize].len {
            return None;
        }
        let nowhere = &mut |_: &[u8]| {};
        let mut items = self.writer(place, nowhere);
        items.parser.at += 1;
        items.container += 1;
        for _ in 0..index {
            items.value()?;
            items.parser.skip_white_space();
            items.parser.at += 1;
        }
        items.place()
    }

    fn name(&self, member: &Member) -> Cow<'a, str> {
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
    fn members(self) -> Range<usize> {
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

/// Writes the form of one value of a document. The text has been checked, so no step can fail.
struct Writer<'w, 'a, W: ?Sized> {
    document: &'w Document<'a>,
    parser: Parser<'a>,
    /// The number of containers that have been opened.
    container: usize,
    out: &'w mut W,
}

impl<W: FnMut(&[u8]) + ?Sized> Writer<'_, '_, W> {
    fn value(&mut self) -> Option<()> {
        self.parser.skip_white_space();
        match self.parser.peek()? {
            b'{' => self.object(),
            b'[' => self.array(),
            _ => {
                let (kind, text) = self.parser.scalar()?;
                match kind {
                    NUMBER => self.number(&text),
                    _ => self.text(kind, &text),
                }
                Some(())
            }
        }
    }

    fn number(&mut self, text: &str) {
        let Some(number) = Decimal::of(text) else {
            return self.text(HUGE_NUMBER, text);
        };
        let [leading, trailing] = number.digits;
        self.head(NUMBER, leading.len() + trailing.len());
        (self.out)(leading.as_bytes());
        (self.out)(trailing.as_bytes());
        (self.out)(&number.exponent.to_le_bytes());
        (self.out)(&[u8::from(number.is_negative)]);
    }

    fn array(&mut self) -> Option<()> {
        let len = self.open(ARRAY).len;
        for _ in 0..len {
            self.value()?;
            self.parser.skip_white_space();
            // Skips the comma. The last item has no comma.
            self.parser.at += usize::from(self.parser.peek()? == b',');
        }
        self.close();
        Some(())
    }

    fn object(&mut self) -> Option<()> {
        let container = self.open(OBJECT);
        let document = self.document;
        let mut end = self.place()?;
        for member in &document.members[container.members()] {
            self.text(STRING, &document.name(member));
            self.parser.at = member.value.at as usize;
            self.container = member.value.container as usize;
            self.value()?;
            end = end.max(self.place()?);
        }
        // Continues after the member that is last in the text.
        self.parser.at = end.at as usize;
        self.container = end.container as usize;
        self.close();
        Some(())
    }

    fn open(&mut self, kind: u8) -> Container {
        let container = self.document.containers[self.container];
        self.head(kind, container.len as usize);
        self.container += 1;
        self.parser.at += 1;
        container
    }

    fn close(&mut self) {
        self.parser.skip_white_space();
        self.parser.at += 1;
    }

    fn place(&self) -> Option<Place> {
        Some(Place {
            at: self.parser.place()?,
            container: u32::try_from(self.container).ok()?,
        })
    }

    fn head(&mut self, kind: u8, len: usize) {
        let mut head = [kind; 9];
        head[1..].copy_from_slice(&(len as u64).to_le_bytes());
        (self.out)(&head);
    }

    fn text(&mut self, kind: u8, text: &str) {
        self.head(kind, text.len());
        (self.out)(text.as_bytes());
    }
}

/// The value of a number: its digits as an integer, times ten to the power of the exponent. The digits
/// neither start nor end with a zero, so each value has one form. Zero has no digits.
struct Decimal<'a> {
    is_negative: bool,
    /// The digits before and after the decimal point.
    digits: [&'a str; 2],
    exponent: i64,
}

impl<'a> Decimal<'a> {
    /// The parts of a valid number. `None` if the exponent has more than 18 digits.
    fn of(text: &'a str) -> Option<Self> {
        let (is_negative, text) = match text.strip_prefix('-') {
            Some(text) => (true, text),
            None => (false, text),
        };
        let (digits, exponent) = text.split_once(['e', 'E']).unwrap_or((text, "0"));
        let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
        let whole = whole.trim_start_matches('0');
        let fraction = fraction.trim_end_matches('0');
        if whole.is_empty() && fraction.is_empty() {
            return Some(Self {
                is_negative: false,
                digits: ["", ""],
                exponent: 0,
            });
        }
        let exponent = self::exponent(exponent)?;
        Some(if fraction.is_empty() {
            let digits = whole.trim_end_matches('0');
            Self {
                is_negative,
                digits: [digits, ""],
                exponent: exponent + length(whole) - length(digits),
            }
        } else {
            let digits = match whole {
                "" => fraction.trim_start_matches('0'),
                _ => fraction,
            };
            Self {
                is_negative,
                digits: [whole, digits],
                exponent: exponent - length(fraction),
            }
        })
    }
}

/// Reads an exponent of at most 18 digits. A body is shorter than 4 GiB, so adding the length of its digits
/// does not overflow.
fn exponent(text: &str) -> Option<i64> {
    let digits = text.trim_start_matches(['+', '-']).trim_start_matches('0');
    if digits.is_empty() {
        return Some(0);
    }
    let exponent: i64 = digits.parse().ok().filter(|_| digits.len() <= 18)?;
    Some(if text.starts_with('-') {
        -exponent
    } else {
        exponent
    })
}

fn length(digits: &str) -> i64 {
    i64::try_from(digits.len()).unwrap_or(i64::MAX)
}

/// Reads RFC 8259 values. Strings are checked and unescaped by `serde_json`.
struct Parser<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Parser<'a> {
    /// Reads a value that is neither an array nor an object. Returns its kind and its text.
    fn scalar(&mut self) -> Option<(u8, Cow<'a, str>)> {
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

    fn place(&self) -> Option<u32> {
        u32::try_from(self.at).ok()
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

    fn value(body: &[u8]) -> Option<Vec<u8>> {
        let mut form = Vec::new();
        Document::parse(body)?.write(&mut |bytes| form.extend_from_slice(bytes));
        Some(form)
    }

    fn values_at(body: &[u8], pointers: &[&str]) -> Option<Vec<u8>> {
        let mut form = Vec::new();
        Document::parse(body)?.write_at(pointers, &mut |bytes| form.extend_from_slice(bytes));
        Some(form)
    }

    fn write_text(kind: u8, text: &str, form: &mut Vec<u8>) {
        form.push(kind);
        form.extend_from_slice(&(text.len() as u64).to_le_bytes());
        form.extend_from_slice(text.as_bytes());
    }

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
    fn escapes_do_not_change_the_form() {
        assert_eq!(value(br#""\u0061\/""#), value(br#""a/""#));
    }

    #[test]
    fn numbers_are_compared_by_their_exact_value() {
        let form = |text: &str| value(text.as_bytes()).expect("a number");
        for equal in [
            &["1", "1.0", "1e0", "10e-1", "0.1E+1", "1.000e00"][..],
            &["100", "1e2", "1E+2", "0.001e5", "1000e-1"],
            &[
                "0",
                "-0",
                "0.00",
                "0e9",
                "-0.0e-9",
                "0e99999999999999999999",
            ],
            &["-12.5", "-1.25e1", "-125e-1", "-12.50"],
            &["0.005", "5e-3", "0.5e-2", "0.0050"],
            &["100.001", "100001e-3"],
            &["1e00000000000000000000002", "100"],
        ] {
            for other in equal {
                assert_eq!(form(equal[0]), form(other), "{} and {other}", equal[0]);
            }
        }
        let different = [
            "0",
            "1",
            "-1",
            "10",
            "0.1",
            "1.01",
            "101",
            "1001",
            "10.01",
            "9007199254740992",
            "9007199254740993",
            "0.1000000000000000055511151231257827",
            "1e400",
            "1e401",
            "1e-400",
            "1e999999999999999999",
            "1e1000000000000000000",
            "1e2000000000000000000",
            "\"1\"",
            "[1]",
        ];
        for (at, one) in different.iter().enumerate() {
            for other in &different[at + 1..] {
                assert_ne!(form(one), form(other), "{one} and {other}");
            }
        }
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

    #[test]
    fn pointers_follow_rfc_6901() {
        let body = br#"{"":1,"a/b":2,"m~n":3,"l":[4,5],"0":6,"~1":7,"/":8}"#;
        let at = |pointer| values_at(body, &[pointer]);
        let is = |text: &str| {
            let mut form = Vec::new();
            write_text(NUMBER, text, &mut form);
            form.extend_from_slice(&[0; 9]);
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

//! Writes the canonical form of one value.

use super::decimal::Decimal;
use super::index::{Container, Document, Place};
use super::kind::{ARRAY, HUGE_NUMBER, NUMBER, OBJECT, STRING};
use super::parser::Parser;

impl<'a> Document<'a> {
    /// Writes the canonical form of the whole body.
    pub(crate) fn write(&self, out: &mut (impl FnMut(&[u8]) + ?Sized)) {
        self.writer(Place::default(), out).value();
    }

    pub(super) fn writer<'w, W: FnMut(&[u8]) + ?Sized>(
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
}

/// Writes the form of one value of a document. The text has been checked, so no step can fail.
pub(super) struct Writer<'w, 'a, W: ?Sized> {
    document: &'w Document<'a>,
    pub(super) parser: Parser<'a>,
    /// The number of containers that have been opened.
    pub(super) container: usize,
    out: &'w mut W,
}

impl<W: FnMut(&[u8]) + ?Sized> Writer<'_, '_, W> {
    pub(super) fn value(&mut self) -> Option<()> {
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

    pub(super) fn place(&self) -> Option<Place> {
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

//! Finds values by JSON pointers (RFC 6901), and writes their canonical forms.

use super::index::{Document, Place};
use super::kind::ABSENT;

impl Document<'_> {
    /// Writes the canonical forms of the values at these JSON pointers (RFC 6901), in the order of
    /// the pointers. Writes nothing and returns false when the document has none of the values.
    pub(crate) fn write_at(
        &self,
        pointers: &[&str],
        out: &mut (impl FnMut(&[u8]) + ?Sized),
    ) -> bool {
        let places = pointers.iter().map(|pointer| self.find(pointer));
        let places: Vec<_> = places.collect();
        if places.iter().all(Option::is_none) {
            return false;
        }
        for place in places {
            match place {
                Some(place) => _ = self.writer(place, out).value(),
                None => out(&[ABSENT]),
            }
        }
        true
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
}

#[cfg(test)]
mod tests {
    use super::super::kind::NUMBER;
    use super::super::tests::value;
    use super::*;

    fn values_at(body: &[u8], pointers: &[&str]) -> Option<Vec<u8>> {
        let mut form = Vec::new();
        let document = Document::parse(body)?;
        let has_any = document.write_at(pointers, &mut |bytes| form.extend_from_slice(bytes));
        has_any.then_some(form)
    }

    fn write_text(kind: u8, text: &str, form: &mut Vec<u8>) {
        form.push(kind);
        form.extend_from_slice(&(text.len() as u64).to_le_bytes());
        form.extend_from_slice(text.as_bytes());
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
            assert_eq!(at(nowhere), None, "{nowhere}");
            let with_a_value = values_at(body, &[nowhere, "/0"]).expect("a value");
            assert_eq!(
                with_a_value.split_first(),
                Some((&ABSENT, &*at("/0").expect("a value")))
            );
        }
    }
}

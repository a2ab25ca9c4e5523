//! The facts about an endpoint that its documentation needs, in the type of a parameter.
//!
//! A library that documents a handler sees only its types. So the attribute writes the facts as one number, which is a
//! `const` parameter of a type, and the name of the header of `key = header("…")` as a list of such numbers.
//! `idem-macros/src/expand/facts.rs` writes both.

use std::marker::PhantomData;

use http::StatusCode;

use crate::settings::policy::Statuses;

const REQUIRED: u32 = 0;
const HOLDS_UNKNOWN: u32 = 1;
const TOKEN: u32 = 2;
const HEADER: u32 = 3;
const STREAMED: u32 = 4;
const OWN_RUNTIME: u32 = 5;
const GLOBAL: u32 = 6;
const OWN_KEY: u32 = 7;
/// The first of 8 bits, for the classes 2xx to 9xx. No class: the default of `record`.
const CLASSES: u32 = 8;
/// The first of 10 codes of 11 bits. A code above 1,000 is a status that is not recorded, although its class is.
const CODES: u32 = 16;
const CODE_BITS: u32 = 11;
const MAX_CODES: u32 = 10;
const TRANSACTIONAL: u32 = 126;
const NO_BODY: u32 = 127;

/// The name of the header of `key = header("…")`. `()` is the end of the name, and no name.
pub trait KeyName {
    /// Appends the name.
    fn append_to(name: &mut String);
}

/// Up to 16 bytes of a name, of which the last is the lowest byte of the number, and the rest of the name.
#[derive(Debug)]
pub struct Chars<const CHARS: u128, Rest = ()>(PhantomData<fn() -> Rest>);

impl KeyName for () {
    fn append_to(_: &mut String) {}
}

impl<const CHARS: u128, Rest: KeyName> KeyName for Chars<CHARS, Rest> {
    fn append_to(name: &mut String) {
        let bytes = CHARS.to_be_bytes().into_iter();
        name.extend(bytes.skip_while(|byte| *byte == 0).map(char::from));
        Rest::append_to(name);
    }
}

/// The arguments of one attribute.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Facts(pub(crate) u128);

impl Facts {
    const fn has(self, bit: u32) -> bool {
        self.0 >> bit & 1 == 1
    }

    /// A request without a key is refused: `required`, or the handler has an argument `IdempotencyKey`.
    pub(crate) const fn requires_key(self) -> bool {
        self.has(REQUIRED)
    }

    /// `on_unknown = hold`.
    pub(crate) const fn holds_unknown(self) -> bool {
        self.has(HOLDS_UNKNOWN)
    }

    /// The scope contains `token`.
    pub(crate) const fn has_token(self) -> bool {
        self.has(TOKEN)
    }

    /// The scope contains `header(…)`.
    pub(crate) const fn has_header(self) -> bool {
        self.has(HEADER)
    }

    /// `scope = global`.
    pub(crate) const fn is_global(self) -> bool {
        self.has(GLOBAL)
    }

    /// `key = …`: the key is not in the key header of the service.
    pub(crate) const fn has_own_key(self) -> bool {
        self.has(OWN_KEY)
    }

    /// `transactional`.
    pub(crate) const fn is_transactional(self) -> bool {
        self.has(TRANSACTIONAL)
    }

    /// `record_body = none`.
    pub(crate) const fn records_no_body(self) -> bool {
        self.has(NO_BODY)
    }

    /// `fingerprint = none`: the handler reads the body while it arrives.
    pub(crate) const fn is_streamed(self) -> bool {
        self.has(STREAMED)
    }

    /// `runtime = …`.
    pub(crate) const fn has_own_runtime(self) -> bool {
        self.has(OWN_RUNTIME)
    }

    /// Which responses can be replays.
    pub(crate) fn recorded(self) -> Statuses {
        let classes = (0..8).filter(|class| self.has(CLASSES + class));
        let classes: Vec<_> = classes
            .filter_map(|class| u16::try_from(class + 2).ok())
            .collect();
        let code = |at| self.0 >> (CODES + at * CODE_BITS) & ((1 << CODE_BITS) - 1);
        let codes = (0..MAX_CODES).map(code).filter(|code| *code != 0);
        let codes: Vec<_> = codes.filter_map(|code| u16::try_from(code).ok()).collect();
        let has_own = !classes.is_empty() || codes.iter().any(|code| *code < 1_000);
        let statuses = if has_own {
            classes.into_iter().fold(Statuses::NONE, Statuses::class)
        } else {
            Statuses::DEFAULT
        };
        codes
            .into_iter()
            .fold(statuses, |statuses, code| match code {
                1_000.. => statuses.without(code - 1_000),
                code => statuses.code(code),
            })
    }

    /// Whether a response with this status can be a replay. The status is a key of an OpenAPI document, such as `201`,
    /// `4XX` or `default`.
    pub(crate) fn replays(self, status: &str) -> bool {
        let recorded = self.recorded();
        let is_recorded =
            |code| StatusCode::from_u16(code).is_ok_and(|code| recorded.contains(code));
        match (status.parse(), status.as_bytes()) {
            (Ok(code), _) => is_recorded(code),
            (_, [class @ b'2'..=b'9', b'X' | b'x', b'X' | b'x']) => {
                let first = u16::from(class - b'0') * 100;
                (first..first + 100).any(is_recorded)
            }
            _ => status == "default",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_statuses_of_the_facts_are_those_of_the_policy() {
        assert_eq!(Facts(0).recorded(), Statuses::DEFAULT);
        let classes = Facts(1 << CLASSES | 1 << (CLASSES + 2));
        assert_eq!(classes.recorded(), Statuses::NONE.class(2).class(4));
        let code = |code: u128, at: u32| code << (CODES + at * CODE_BITS);
        let with = Facts(1 << CLASSES | code(503, 0) | code(1_204, 1));
        assert_eq!(
            with.recorded(),
            Statuses::NONE.class(2).code(503).without(204)
        );
        let only = Facts(code(201, 0));
        assert_eq!(only.recorded(), Statuses::NONE.code(201));
        let default_without = Facts(code(1_404, 0));
        assert_eq!(default_without.recorded(), Statuses::DEFAULT.without(404));
        assert_eq!(Facts(1 << TRANSACTIONAL).recorded(), Statuses::DEFAULT);
        assert_eq!(Facts(1 << NO_BODY).recorded(), Statuses::DEFAULT);
        let all = (0..8).fold(0, |all, class| all | 1 << (CLASSES + class));
        assert_eq!(Facts(all).recorded(), Statuses::ALL);
    }

    #[test]
    fn a_type_contains_the_name_of_a_header() {
        fn name<N: KeyName>() -> String {
            let mut name = String::new();
            N::append_to(&mut name);
            name
        }
        const FIRST: u128 = u128::from_be_bytes(*b"x-github-deliver");
        assert_eq!(name::<()>(), "");
        assert_eq!(name::<Chars<{ b'a' as u128 }>>(), "a");
        assert_eq!(name::<Chars<FIRST, Chars<121>>>(), "x-github-delivery");
    }

    #[test]
    fn a_status_key_of_the_document_decides_whether_its_responses_can_be_replays() {
        let facts = Facts(0);
        for key in ["200", "201", "404", "2XX", "4XX", "default"] {
            assert!(facts.replays(key), "{key}");
        }
        for key in ["401", "500", "5XX", "x-own", ""] {
            assert!(!facts.replays(key), "{key}");
        }
    }
}

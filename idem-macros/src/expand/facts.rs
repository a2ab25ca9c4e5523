//! Writes the facts about an endpoint that its documentation needs: a number, and the name of a key header.
//!
//! Both are parameters of a type, because a library that documents a handler sees only its types.
//! `idem-runtime/src/openapi/facts.rs` reads them and explains the bits.

use proc_macro2::{Literal, TokenStream};
use quote::quote;

use crate::check::key::Key;
use crate::check::plan::Plan;
use crate::check::scope::Part;
use crate::parse::attribute_args::AttributeArgs;
use crate::parse::fingerprint::Fingerprint;
use crate::parse::handler::{Handler, Parameter};
use crate::parse::request_types::{KeyType, key_type};
use crate::parse::statuses::{Listed, Status, Statuses};

const CLASSES: u32 = 8;
const CODES: u32 = 16;
const CODE_BITS: u32 = 11;
const MAX_CODES: usize = 10;
const TRANSACTIONAL: u32 = 126;
const NO_BODY: u32 = 127;
const NOT_BY_DEFAULT: [u16; 5] = [401, 403, 408, 425, 429];

/// Returns the type parameters: the number, and the name of the header of `key = header("…")`.
pub(crate) fn facts(
    args: &AttributeArgs,
    plan: &Plan,
    handler: &Handler,
    private: &TokenStream,
) -> TokenStream {
    let facts = Literal::u128_unsuffixed(number(args, plan, handler));
    match &plan.key {
        Some(Key::Header(name)) => {
            let name = chars(&name.value(), private);
            quote!(#facts, #name)
        }
        Some(Key::Value(_)) | None => quote!(#facts),
    }
}

/// Returns the name as a list of numbers, because a type cannot contain a string.
fn chars(name: &str, private: &TokenStream) -> TokenStream {
    let chunks = name.as_bytes().chunks(16).rev();
    chunks.fold(TokenStream::new(), |rest, chunk| {
        let bytes = chunk.iter().map(|byte| u128::from(*byte));
        let number = Literal::u128_unsuffixed(bytes.fold(0, |number, byte| number << 8 | byte));
        let rest = (!rest.is_empty()).then(|| quote!(, #rest));
        quote!(#private::Chars<#number #rest>)
    })
}

fn number(args: &AttributeArgs, plan: &Plan, handler: &Handler) -> u128 {
    let has = |is_it: fn(&Part) -> bool| plan.parts.iter().any(is_it);
    let takes_key = |it: &Parameter| key_type(&it.ty) == Some(KeyType::Always);
    let flags = [
        args.required || handler.parameters.iter().any(takes_key),
        args.hold_unknown,
        has(|part| matches!(part, Part::Token)),
        has(|part| matches!(part, Part::Header(_))),
        matches!(args.fingerprint, Some(Fingerprint::None)),
        args.runtime.is_some(),
        plan.parts.iter().all(|part| matches!(part, Part::Global)),
        args.key.is_some(),
    ];
    let mut facts = 0_u128;
    for (bit, is_set) in flags.into_iter().enumerate() {
        facts |= u128::from(is_set) << bit;
    }
    facts |= u128::from(args.transactional.is_some()) << TRANSACTIONAL;
    facts |= u128::from(args.records_no_body) << NO_BODY;
    facts | recorded(args.record.as_ref(), args.unknown.as_ref())
}

/// Which responses can be replays. A response in `unknown` is never recorded, unless `record` lists its code.
fn recorded(record: Option<&Statuses>, unknown: Option<&Statuses>) -> u128 {
    let listed = |statuses: Option<&Statuses>| -> Vec<Status> {
        let listed = statuses.into_iter().flat_map(Statuses::listed);
        listed.map(|Listed { status, .. }| *status).collect()
    };
    let (record_list, unknown) = (listed(record), listed(unknown));
    let takes_a_class = unknown
        .iter()
        .any(|status| matches!(status, Status::Class(_)));
    let mut codes = Vec::new();
    let mut classes: u128 = match record {
        Some(Statuses::All) => 0xff,
        // The default, less a class: the default itself has no bits.
        None if takes_a_class => {
            codes.extend(NOT_BY_DEFAULT.map(|code| code + 1_000));
            0b111
        }
        _ => 0,
    };
    for status in &record_list {
        match *status {
            Status::Class(class) => classes |= 1 << (class - 2),
            Status::Code(code) => codes.push(code),
        }
    }
    for status in unknown {
        match status {
            Status::Class(class) => classes &= !(1 << (class - 2)),
            Status::Code(code) if !codes.contains(&code) => codes.push(code + 1_000),
            Status::Code(_) => {}
        }
    }
    // A recorded code for which there is no room becomes its whole class: the document may mark too many responses as
    // possible replays, but it leaves none out. For the same reason, codes that are not recorded come last.
    codes.sort_by_key(|code| *code >= 1_000);
    for code in codes.iter().skip(MAX_CODES).filter(|code| **code < 1_000) {
        classes |= 1 << (code / 100 - 2);
    }
    let codes = codes.into_iter().take(MAX_CODES).enumerate();
    codes.fold(classes << CLASSES, |facts, (at, code)| {
        let at = u32::try_from(at).unwrap_or_default();
        facts | u128::from(code) << (CODES + at * CODE_BITS)
    })
}

#[cfg(test)]
mod tests {
    use proc_macro2::Span;

    use super::*;

    fn list(statuses: &[Status]) -> Statuses {
        let listed = |status: &Status| Listed {
            status: *status,
            span: Span::call_site(),
        };
        Statuses::These(statuses.iter().map(listed).collect())
    }

    #[test]
    fn the_name_of_a_header_becomes_numbers() {
        let check = |name: &str, expected: &str| {
            let written = chars(name, &quote!(p)).to_string();
            assert_eq!(written.replace(' ', ""), expected);
        };
        check("a", "p::Chars<97>");
        check("x-id", "p::Chars<2016242020>");
        // The first 16 bytes, and the last one.
        let first = u128::from_be_bytes(*b"x-github-deliver");
        let expected = format!("p::Chars<{first},p::Chars<121>>");
        check("x-github-delivery", &expected);
    }

    #[test]
    fn the_recorded_statuses_become_bits() {
        use Status::{Class, Code};

        let code = |code: u128, at: u32| code << (CODES + at * CODE_BITS);
        assert_eq!(recorded(None, None), 0);
        assert_eq!(recorded(Some(&Statuses::All), None), 0xff << CLASSES);
        let record = list(&[Class(2), Code(503)]);
        assert_eq!(recorded(Some(&record), None), 1 << CLASSES | code(503, 0));
        let unknown = list(&[Class(5), Code(503), Code(204)]);
        let both = recorded(Some(&record), Some(&unknown));
        assert_eq!(both, 1 << CLASSES | code(503, 0) | code(1_204, 1));
        let all = recorded(Some(&Statuses::All), Some(&list(&[Class(5)])));
        assert_eq!(all, 0xf7 << CLASSES);
        let default = recorded(None, Some(&list(&[Class(4)])));
        assert_eq!(default & 0xff00, 0b011 << CLASSES);
        assert_eq!(recorded(None, Some(&list(&[Code(404)]))), code(1_404, 0));
        // More codes than there is room for: the others become their class, and a code that is not recorded is left out.
        let many: Vec<_> = (500..510).chain([410]).map(Code).collect();
        let facts = recorded(Some(&list(&many)), Some(&list(&[Code(204)])));
        assert_eq!(facts >> (CODES + 10 * CODE_BITS), 0);
        assert_eq!(facts & 0xff00, 0b100 << CLASSES);
        for (at, code) in (500..510).enumerate() {
            let at = u32::try_from(at).expect("a small number");
            let written = facts >> (CODES + at * CODE_BITS) & ((1 << CODE_BITS) - 1);
            assert_eq!(written, code);
        }
    }
}

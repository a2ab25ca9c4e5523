//! Writes the facts about an endpoint that its documentation needs, as one number.
//!
//! The number is a `const` parameter of a type, because a library that documents a handler sees only its types.
//! `idem-runtime/src/openapi/facts.rs` reads it and explains the bits.

use proc_macro2::TokenStream;
use quote::{ToTokens as _, quote};

use crate::check::plan::Plan;
use crate::check::scope::Part;
use crate::parse::attribute_args::AttributeArgs;
use crate::parse::fingerprint::Fingerprint;
use crate::parse::statuses::{Listed, Status, Statuses};

const CLASSES: u32 = 8;
const CODES: u32 = 16;
const CODE_BITS: u32 = 11;
const MAX_CODES: usize = 10;
const TRANSACTIONAL: u32 = 126;
const NOT_BY_DEFAULT: [u16; 5] = [401, 403, 408, 425, 429];

/// Returns the number as a literal.
pub(crate) fn facts(args: &AttributeArgs, plan: &Plan) -> TokenStream {
    let has = |is_it: fn(&Part) -> bool| plan.parts.iter().any(is_it);
    let flags = [
        args.required,
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
    facts |= recorded(args.record.as_ref(), args.unknown.as_ref());
    let facts = proc_macro2::Literal::u128_unsuffixed(facts).into_token_stream();
    quote!(#facts)
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
        // More codes than there is room for.
        let many: Vec<_> = (500..520).map(Code).collect();
        assert_eq!(
            recorded(Some(&list(&many)), None) >> (CODES + 10 * CODE_BITS),
            0
        );
    }
}

//! The attribute as a plain function. Its own crate can export nothing but the macro, so that this one
//! is made of the same sources.

#[path = "../../idem-macros/src/args.rs"]
mod args;
#[path = "../../idem-macros/src/arguments.rs"]
mod arguments;
#[path = "../../idem-macros/src/body_extractors.rs"]
mod body_extractors;
#[path = "../../idem-macros/src/check.rs"]
mod check;
#[path = "../../idem-macros/src/duration.rs"]
mod duration;
#[path = "../../idem-macros/src/expand.rs"]
mod expand;
#[path = "../../idem-macros/src/fallback.rs"]
mod fallback;
#[path = "../../idem-macros/src/fingerprint.rs"]
mod fingerprint;
#[path = "../../idem-macros/src/form.rs"]
mod form;
#[path = "../../idem-macros/src/handler.rs"]
mod handler;
#[path = "../../idem-macros/src/mistakes.rs"]
mod mistakes;
#[path = "../../idem-macros/src/names.rs"]
mod names;
#[path = "../../idem-macros/src/patterns.rs"]
mod patterns;
#[path = "../../idem-macros/src/returns.rs"]
mod returns;
#[path = "../../idem-macros/src/scope.rs"]
mod scope;
#[path = "../../idem-macros/src/scope_names.rs"]
mod scope_names;
#[path = "../../idem-macros/src/statuses.rs"]
mod statuses;
#[path = "../../idem-macros/src/transform.rs"]
mod transform;
#[path = "../../idem-macros/src/words.rs"]
mod words;

use proc_macro2::TokenStream;

/// What the attribute writes, and whether without a complaint.
pub fn transform(arguments: TokenStream, item: TokenStream) -> (TokenStream, bool) {
    let (item, mistakes) = transform::transform(arguments, item);
    let is_fine = mistakes.is_empty();
    // To show a complaint is a part of the work.
    let complaints = mistakes.into_compile_errors();
    (
        item.into_iter()
            .chain(complaints.into_iter().flatten())
            .collect(),
        is_fine,
    )
}

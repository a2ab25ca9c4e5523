//! The attribute as a plain function. Its own crate can export nothing but the macro, so that this one
//! is made of the same sources.

#[path = "../../idem-macros/src/check/mod.rs"]
mod check;
#[path = "../../idem-macros/src/expand/mod.rs"]
mod expand;
#[path = "../../idem-macros/src/messages/mod.rs"]
mod messages;
#[path = "../../idem-macros/src/parse/mod.rs"]
mod parse;
#[path = "../../idem-macros/src/transform.rs"]
mod transform;

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

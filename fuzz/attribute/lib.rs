//! The attribute as a plain function. A macro crate can only export macros, so this crate compiles the
//! same sources.

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

use crate::parse::documenters::Documenters;

/// Returns the generated code, and whether there were no mistakes.
pub fn transform(arguments: TokenStream, item: TokenStream) -> (TokenStream, bool) {
    let (item, mistakes) = transform::transform(arguments, item, Documenters::default());
    let is_fine = mistakes.is_empty();
    // Converts the mistakes to compile errors, so that this code is fuzzed too.
    let errors = mistakes.into_compile_errors();
    (
        item.into_iter()
            .chain(errors.into_iter().flatten())
            .collect(),
        is_fine,
    )
}

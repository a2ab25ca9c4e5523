//! The attribute's whole work, from tokens to tokens.

use proc_macro2::TokenStream;

use crate::check::signature as check;
use crate::expand::{fallback, function as expand};
use crate::messages::mistakes::Mistakes;
use crate::parse::attribute::Args;
use crate::parse::handler::Handler;

/// Parses, checks and expands; where there are mistakes, the item is the one without the attribute.
pub(crate) fn transform(arguments: TokenStream, item: TokenStream) -> (TokenStream, Mistakes) {
    let mut mistakes = Mistakes::default();
    let mut handler: Handler = match syn::parse2(item.clone()) {
        Ok(handler) => handler,
        Err(error) => {
            let item = fallback::not_a_function(&error, item, &mut mistakes);
            return (item, mistakes);
        }
    };
    let args = Args::parse(arguments, &mut mistakes);
    check::doubled(&mut handler, &mut mistakes);
    check::entry_point(&mut handler, &mut mistakes);
    let repair = check::signature(&handler, &mut mistakes);
    let plan = check::plan(&args, &handler, &mut mistakes);
    let item = if mistakes.is_empty() {
        expand::expand(&args, &plan, &handler)
    } else {
        fallback::expand(&handler, repair)
    };
    (item, mistakes)
}

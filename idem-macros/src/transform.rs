//! The attribute as a function from tokens to tokens: parse, check, expand.

use proc_macro2::TokenStream;

use crate::check::item::not_a_function;
use crate::check::plan::Plan;
use crate::check::{other_attributes, signature};
use crate::expand::{fallback, handler};
use crate::messages::mistakes::Mistakes;
use crate::parse::attribute_args::AttributeArgs;
use crate::parse::documenters::Documenters;
use crate::parse::handler::Handler;

/// Returns the expansion, or the item as it is without the attribute when there are mistakes.
pub(crate) fn transform(
    arguments: TokenStream,
    item: TokenStream,
    documenters: Documenters,
) -> (TokenStream, Mistakes) {
    let mut mistakes = Mistakes::default();
    let mut handler: Handler = match syn::parse2(item.clone()) {
        Ok(handler) => handler,
        Err(error) => {
            let item = not_a_function(&error, item, &mut mistakes);
            return (item, mistakes);
        }
    };
    let args = AttributeArgs::parse(arguments, &mut mistakes);
    other_attributes::remove_second_idempotent(&mut handler, &mut mistakes);
    other_attributes::remove_entry_points(&mut handler, &mut mistakes);
    let repair = signature::check(&handler, &mut mistakes);
    let plan = Plan::of(&args, &handler, &mut mistakes);
    let item = if mistakes.is_empty() {
        handler::expand(&args, &plan, &handler, documenters)
    } else {
        fallback::expand(&handler, repair)
    };
    (item, mistakes)
}

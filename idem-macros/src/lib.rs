//! The `#[idempotent]` attribute of [axum-idem](https://docs.rs/axum-idem).
//!
//! Use it through `axum_idem::idempotent`: what it writes calls the runtime of that crate, at the
//! same version.

mod args;
mod arguments;
mod check;
mod duration;
mod expand;
mod fallback;
mod fingerprint;
mod handler;
mod mistakes;
mod names;
mod patterns;
mod returns;
mod scope;
mod statuses;
mod words;

use proc_macro2::TokenStream;

use crate::args::Args;
use crate::handler::Handler;
use crate::mistakes::Mistakes;

/// Makes an axum handler safe to retry.
#[proc_macro_attribute]
pub fn idempotent(
    arguments: proc_macro::TokenStream,
    item: proc_macro::TokenStream,
) -> proc_macro::TokenStream {
    transform(arguments.into(), item.into()).into()
}

/// Parses, checks and expands; on a mistake, all mistakes and the item without the attribute.
fn transform(arguments: TokenStream, item: TokenStream) -> TokenStream {
    let mut mistakes = Mistakes::default();
    let mut handler: Handler = match syn::parse2(item.clone()) {
        Ok(handler) => handler,
        Err(error) => {
            match handler::other_item(item.clone()) {
                Some((what, token)) => mistakes.at(
                    token,
                    format!("`#[idempotent]` goes on a handler, an `async fn`, and not on {what}"),
                ),
                None => mistakes.push(error),
            }
            return with_errors(mistakes, item);
        }
    };
    let args = Args::parse(arguments, &mut mistakes);
    check::doubled(&mut handler.attrs, &mut mistakes);
    let repair = check::signature(&handler, &mut mistakes);
    let plan = check::plan(&args, &handler, &mut mistakes);
    if mistakes.is_empty() {
        expand::expand(&args, &plan, &handler)
    } else {
        with_errors(mistakes, fallback::expand(&handler, repair))
    }
}

/// The item, and every mistake at its place.
fn with_errors(mistakes: Mistakes, mut item: TokenStream) -> TokenStream {
    item.extend(mistakes.into_compile_errors());
    item
}

//! What is emitted beside the errors, so that nothing else in the crate breaks.

use proc_macro2::TokenStream;
use quote::quote;
use syn::ReturnType;

use crate::messages::mistakes::Mistakes;
use crate::parse::handler::{self, Handler};
use crate::parse::names;

/// What a faulty handler needs to stay one for its router.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Repair {
    /// Nothing: as it is written it is a function of its own right.
    AsWritten,
    /// `async` put in; `const`, `unsafe` and `extern` left out.
    Qualifiers,
    /// Its arguments fit no handler, so that it gets none; what was written is kept inside.
    Stub,
}

/// The handler without the attribute.
pub(crate) fn expand(handler: &Handler, repair: Repair) -> TokenStream {
    let Handler {
        attrs,
        vis,
        sig,
        body,
        ..
    } = handler;
    let Some(body) = body else {
        return quote!(#(#attrs)* #vis #sig;);
    };
    // What only the scope would have used is no second mistake.
    let allow = quote!(#[allow(unused_variables)]);
    match repair {
        Repair::AsWritten => quote!(#(#attrs)* #allow #vis #sig { #body }),
        Repair::Qualifiers => {
            let mut sig = sig.clone();
            sig.constness = None;
            sig.safety = syn::Safety::Default;
            sig.abi = None;
            if sig.asyncness.is_none() && !gives_a_future(&sig.output) {
                sig.asyncness = Some(syn::Token![async](sig.fn_token.span));
            }
            quote!(#(#attrs)* #allow #vis #sig { #body })
        }
        Repair::Stub => {
            let (name, generics) = (&sig.ident, &sig.generics);
            let (_, _, bounds) = generics.split_for_impl();
            let as_written = quote!(#[allow(dead_code, unused_variables)] #sig { #body });
            // Inside another function there is no `Self`.
            let as_written = (!names::mentions_self(as_written.clone())).then_some(as_written);
            quote!(#vis async fn #name #generics () #bounds { #as_written })
        }
    }
}

/// Something that no attribute can make a handler of, and what of it can still be emitted.
pub(crate) fn not_a_function(
    error: &syn::Error,
    item: TokenStream,
    mistakes: &mut Mistakes,
) -> TokenStream {
    let Some(other) = handler::other_item(item.clone()) else {
        let message = format!("cannot read this function: {error}");
        mistakes.at_span(error.span(), message);
        return item;
    };
    mistakes.at(
        &other.token,
        format!(
            "`#[idempotent]` goes on a handler, an `async fn`, and not on {}",
            other.name
        ),
    );
    // In the place of an expression there is room for the error alone.
    if other.is_expression {
        TokenStream::new()
    } else {
        item
    }
}

fn gives_a_future(output: &ReturnType) -> bool {
    let words = quote!(#output).to_string();
    words.contains("Future")
}

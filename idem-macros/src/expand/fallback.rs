//! Generates the item that is emitted together with the errors, so that they are the only errors in the
//! crate.

use proc_macro2::TokenStream;
use quote::quote;
use syn::ReturnType;

use crate::check::repair::Repair;
use crate::parse::handler::Handler;
use crate::parse::names;

/// Returns the function without the attribute, with the repair that lets its router accept it.
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
    // A variable that only the scope uses is not an unused variable. An `allow` would be a second error under a
    // `forbid`.
    let names = handler.parameters.iter().flat_map(|it| &it.bindings);
    let names = names.filter(|name| !name.to_string().starts_with('_'));
    let used = names.map(|name| quote!(let _ = &#name;));
    let body = quote!({ #(#used)* #body });
    match repair {
        Repair::AsWritten => quote!(#(#attrs)* #vis #sig #body),
        Repair::Qualifiers => {
            let mut sig = sig.clone();
            sig.constness = None;
            sig.safety = syn::Safety::Default;
            sig.abi = None;
            if sig.asyncness.is_none() && !gives_a_future(&sig.output) {
                sig.asyncness = Some(syn::Token![async](sig.fn_token.span));
            }
            quote!(#(#attrs)* #vis #sig #body)
        }
        Repair::Stub => {
            let (name, generics) = (&sig.ident, &sig.generics);
            let (_, _, bounds) = generics.split_for_impl();
            let as_written = quote!(#[allow(dead_code)] #sig #body);
            // A function inside another function cannot name `Self`.
            let as_written = (!names::mentions_self(as_written.clone())).then_some(as_written);
            quote!(#vis async fn #name #generics () #bounds { #as_written })
        }
        Repair::Empty => {
            let (name, generics) = (&sig.ident, &sig.generics);
            let (_, _, bounds) = generics.split_for_impl();
            quote!(#vis async fn #name #generics () #bounds {})
        }
    }
}

fn gives_a_future(output: &ReturnType) -> bool {
    let words = quote!(#output).to_string();
    words.contains("Future")
}

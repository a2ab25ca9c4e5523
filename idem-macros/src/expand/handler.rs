//! Generates the handler, which runs the user's body only when the runtime admits the request.
//!
//! ```text
//! #[idempotent(scope = token)]                 fn place_trade(
//! async fn place_trade(                            State(desk): State<Desk>,
//!     State(desk): State<Desk>,                    order: Deferred<Json<Order>>,
//!     Json(order): Json<Order>,            →   ) -> impl Future<Output = Response> {
//! ) -> Json<Trade> {                               static __IDEM_POLICY: Policy = …;
//!     …                                            __IDEM_POLICY
//! }                                                    .admit(order, &|scope| scope.token())
//!                                                      .run(async move |Json(order)| { … })
//!                                              }
//! ```

use std::collections::HashSet;

use proc_macro2::{Delimiter, Group, Span, TokenStream};
use quote::{ToTokens, format_ident, quote, quote_spanned};
use syn::ext::IdentExt as _;
use syn::spanned::Spanned as _;
use syn::{Attribute, Expr};

use crate::check::plan::Plan;
use crate::expand::bounds::outliving;
use crate::expand::facade::private;
use crate::expand::facts::facts;
use crate::expand::parameters::{Opened, Parameters};
use crate::expand::policy::policy;
use crate::expand::{openapi, returns, scope};
use crate::parse::attribute_args::AttributeArgs;
use crate::parse::documenters::Documenters;
use crate::parse::handler::{Handler, Parameter};
use crate::parse::names;

/// Returns the item that replaces the user's function.
pub(crate) fn expand(
    args: &AttributeArgs,
    plan: &Plan,
    handler: &Handler,
    documenters: Documenters,
) -> TokenStream {
    let private = private(args, Span::call_site());
    let Handler {
        attrs, vis, sig, ..
    } = handler;
    let (fn_token, name) = (&sig.fn_token, &sig.ident);
    let generics = outliving(&sig.generics);
    let (type_parameters, _, bounds) = generics.split_for_impl();

    let facts = facts(args, plan, handler, &private);
    let with_key = |attr: &Attribute| {
        if documenters.utoipa {
            openapi::with_key(attr, &private, &facts)
        } else {
            attr.clone()
        }
    };
    let attrs: Vec<Attribute> = attrs.iter().map(with_key).collect();
    let (debugging, attrs): (Vec<_>, Vec<_>) = attrs.iter().partition(|attr| is_debugging(attr));
    let debugged = debugged(handler, &debugging);
    let stays_async = !attrs.iter().all(|attr| is_inert(attr));
    let declared = documenters
        .aide
        .then(|| openapi::declared(&sig.output, &private, &facts));
    let parameters = Parameters::of(handler, plan, stays_async, declared);
    let head = parameters.head_declarations(args);
    let last = parameters.last_declaration(args);
    let policy = policy(args, handler, &private);
    let repeated = repeated_name(handler);
    let split = parameters.split(args);
    let admit = admit(args, plan, &parameters);
    let run = run(args, &parameters, handler);
    let span = returns::span(&handler.sig);
    // With the hygiene of the macro, clippy does not take the path for one that the user wrote.
    let response = self::private(args, Span::call_site().located_at(span));
    let response = quote_spanned!(span=> #response::Response);
    // Returning the runtime's future avoids another future around it. Other attribute macros may need the
    // `async fn`.
    let (asyncness, output, awaited) = if stays_async {
        (sig.asyncness, response, Some(quote!(.await)))
    } else {
        // A recursive body needs its own future to be `Send`, and the compiler cannot infer that while
        // it checks the body.
        let send = calls_itself(handler).then(|| quote_spanned!(span=> + ::core::marker::Send));
        let future = quote_spanned!(span=> impl ::core::future::Future<Output = #response> #send);
        (None, future, None)
    };
    let mut body = Group::new(
        Delimiter::Brace,
        quote! {
            static __IDEM_POLICY: #private::Policy = #policy;
            #repeated
            #split
            #admit #run #awaited
        },
    );
    body.set_span(sig.ident.span());
    quote! {
        #(#attrs)*
        #vis #asyncness #fn_token #name #type_parameters (#(#head,)* #last) -> #output #bounds #body
        #debugged
    }
}

/// Returns a closure that never runs, if two parameters bind names of the same text.
///
/// The patterns of some parameters move into the future of the body, where a second variable would silently hide the
/// first. In the closure, the compiler reports the second variable, as it does for the function that the user wrote.
/// Only the compiler knows whether the names are equal: in a handler that a macro writes, they may come from different
/// macros.
fn repeated_name(handler: &Handler) -> Option<TokenStream> {
    let mut seen = HashSet::new();
    let mut names = handler.parameters.iter().flat_map(|it| &it.bindings);
    if names.all(|name| seen.insert(name.unraw().to_string())) {
        return None;
    }
    let parameters = handler
        .parameters
        .iter()
        .map(|Parameter { pat, ty, .. }| quote!(#pat: #ty));
    Some(quote! {
        if false {
            #[allow(unused_variables, unused_mut)]
            let _ = |#(#parameters),*| ();
        }
    })
}

fn calls_itself(handler: &Handler) -> bool {
    let body = handler.body.clone().unwrap_or_default();
    names::calls(body, &handler.sig.ident)
}

fn is_debugging(attr: &Attribute) -> bool {
    let last = attr.path().segments.last();
    last.is_some_and(|last| last.ident == "debug_handler")
}

/// Returns a second function with the parameters that the user declared, for a `#[debug_handler]` below
/// the attribute. On the expanded handler, `#[debug_handler]` would report the wrapper of the last
/// parameter.
fn debugged(handler: &Handler, debugging: &[&Attribute]) -> Option<TokenStream> {
    if debugging.is_empty() {
        return None;
    }
    let name = format_ident!("__idem_debug_{}", handler.sig.ident.unraw());
    let (type_parameters, _, bounds) = handler.sig.generics.split_for_impl();
    let parameters = handler
        .parameters
        .iter()
        .map(|Parameter { pat, ty, .. }| quote!(#pat: #ty));
    Some(quote! {
        #[allow(warnings)]
        #(#debugging)*
        async fn #name #type_parameters (#(#parameters),*) #bounds {}
    })
}

/// Returns whether an attribute is certainly not a macro. A macro such as `#[instrument]` may need an
/// `async fn`.
fn is_inert(attr: &Attribute) -> bool {
    const INERT: [&str; 13] = [
        "allow",
        "cfg",
        "clippy",
        "cold",
        "deny",
        "deprecated",
        "doc",
        "expect",
        "forbid",
        "inline",
        "must_use",
        "rustfmt",
        "warn",
    ];
    let first = attr.path().segments.first();
    first.is_some_and(|first| INERT.iter().any(|name| first.ident == name))
}

/// `__IDEM_POLICY.admit(order).token()`, or `admit_on` with the user's runtime.
fn admit(args: &AttributeArgs, plan: &Plan, parameters: &Parameters<'_>) -> TokenStream {
    let body = parameters.deferred();
    let key = plan.key.as_ref().map(|key| scope::key(key, parameters));
    let scope = plan.parts.iter().map(|part| scope::part(part, parameters));
    let Some(runtime) = &args.runtime else {
        return quote!(__IDEM_POLICY.admit(#body) #key #(#scope)*);
    };
    let span = Span::call_site().located_at(runtime.span());
    let (opened, runtime) = parameters.opened(unparenthesized(runtime), &plan.runtime_names);
    let runtime = match &runtime {
        Opened::Reference(runtime) => runtime.clone(),
        Opened::Value(
            runtime @ (Expr::Path(_) | Expr::Field(_) | Expr::Index(_) | Expr::Unary(_)),
        ) => scope::reference_to(runtime),
        Opened::Value(runtime) => runtime.to_token_stream(),
    };
    let runtime = if opened.is_empty() {
        quote!(|| #runtime)
    } else {
        quote!(|| { #opened #runtime })
    };
    // The compiler reports a wrong type of the runtime at the call, so the call has the span of the
    // user's expression.
    let admit = quote_spanned!(span=> __IDEM_POLICY.admit_on(#body, #runtime));
    quote!(#admit #key #(#scope)*)
}

/// Returns the expression inside the parentheses.
fn unparenthesized(value: &Expr) -> &Expr {
    match value {
        Expr::Paren(inner) => unparenthesized(&inner.expr),
        Expr::Group(inner) => unparenthesized(&inner.expr),
        value => value,
    }
}

/// `.run(async move |Json(order)| { … })`
///
/// All tokens have the span of the declared return type. There the compiler reports a future that is not
/// `Send`, or a type that is not a response, and only once.
fn run(args: &AttributeArgs, parameters: &Parameters<'_>, handler: &Handler) -> TokenStream {
    let span = returns::span(&handler.sig);
    let admitted = parameters.admitted();
    let moved = parameters.moved();
    let taken_apart = parameters.taken_apart();
    let pin = returns::pin(&handler.sig, &private(args, span));
    let body = &handler.body;
    let block = |content| {
        let mut block = Group::new(Delimiter::Brace, content);
        block.set_span(span);
        block
    };
    let body = if taken_apart.is_empty() && !handler.begins_with_an_item {
        quote!(#pin #body)
    } else {
        // Before edition 2024 the end of a block drops its variables before the temporaries of its
        // last expression, which may borrow from them. The arm of a `match` drops them in time.
        let body = block(body.to_token_stream());
        quote!(#taken_apart #pin match () { () => #body })
    };
    let block = block(quote!(#moved #body));
    quote_spanned!(span=> .run(async move |#admitted| #block))
}

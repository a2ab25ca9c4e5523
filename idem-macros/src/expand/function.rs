//! Writes the handler that asks for permission before the user's body runs.
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

use proc_macro2::{Delimiter, Group, Ident, Span, TokenStream};
use quote::{ToTokens, format_ident, quote, quote_spanned};
use syn::ext::IdentExt as _;
use syn::punctuated::Punctuated;
use syn::spanned::Spanned as _;
use syn::{
    Attribute, Expr, Generics, Path, Token, Type, TypeParamBound, WherePredicate, parse_quote,
};

use crate::check::scope;
use crate::check::signature::Plan;
use crate::expand::parameters::{Arguments, Opened};
use crate::expand::returns;
use crate::parse::attribute::Args;
use crate::parse::handler::{Argument, Handler};
use crate::parse::names;

/// The whole item.
pub(crate) fn expand(args: &Args, plan: &Plan, handler: &Handler) -> TokenStream {
    let private = private(args, Span::call_site());
    let Handler {
        attrs, vis, sig, ..
    } = handler;
    let name = &sig.ident;
    let generics = outliving(&sig.generics);
    let (parameters, _, bounds) = generics.split_for_impl();

    let (debugging, attrs): (Vec<_>, Vec<_>) = attrs.iter().partition(|attr| is_debugging(attr));
    let debugged = debugged(handler, &debugging);
    let stays_async = !attrs.iter().all(|attr| is_inert(attr));
    let arguments = Arguments::of(handler, plan, stays_async);
    let head = arguments.head_declarations();
    let last = arguments.last_declaration(args);
    let policy = policy(args, name, &private);
    let split = arguments.split(args);
    let admit = admit(args, plan, &arguments);
    let run = run(args, &arguments, handler);
    let span = returns::span(&handler.sig);
    let response = self::private(args, span);
    let response = quote_spanned!(span=> #response::Response);
    // What would be awaited at once is handed on as it is, unless somebody else looks at it first.
    let (asyncness, output, awaited) = if stays_async {
        (Some(quote!(async)), response, Some(quote!(.await)))
    } else {
        // Whether it is `Send` cannot be inferred while its own body asks for that.
        let send = calls_itself(handler).then(|| quote_spanned!(span=> + ::core::marker::Send));
        let future = quote_spanned!(span=> impl ::core::future::Future<Output = #response> #send);
        (None, future, None)
    };
    quote! {
        #(#attrs)*
        #vis #asyncness fn #name #parameters (#(#head,)* #last) -> #output #bounds {
            static __IDEM_POLICY: #private::Policy = #policy;
            #split
            #admit #run #awaited
        }
        #debugged
    }
}

fn calls_itself(handler: &Handler) -> bool {
    let body = handler.body.clone().unwrap_or_default();
    names::calls(body, &handler.sig.ident)
}

fn is_debugging(attr: &Attribute) -> bool {
    let last = attr.path().segments.last();
    last.is_some_and(|last| last.ident == "debug_handler")
}

/// The arguments as the user declared them, for `#[debug_handler]` below the attribute: on the handler
/// itself it would complain about the wrapper of the last one.
fn debugged(handler: &Handler, debugging: &[&Attribute]) -> Option<TokenStream> {
    if debugging.is_empty() {
        return None;
    }
    let name = format_ident!("__idem_debug_{}", handler.sig.ident.unraw());
    let (parameters, _, bounds) = handler.sig.generics.split_for_impl();
    let arguments = handler
        .arguments
        .iter()
        .map(|Argument { pat, ty, .. }| quote!(#pat: #ty));
    Some(quote! {
        #[allow(warnings)]
        #(#debugging)*
        async fn #name #parameters (#(#arguments),*) #bounds {}
    })
}

/// Whether an attribute is no macro, which could ask for an `async fn` as `#[instrument]` does.
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

/// The path of what generated code names, as if it were written at `span`; or at the path that the
/// user gave, since that may not be the one.
pub(crate) fn private(args: &Args, span: Span) -> TokenStream {
    match &args.facade {
        None => quote_spanned!(span=> ::axum_idem::__private),
        Some(facade) => quote_spanned!(facade.span()=> #facade::__private),
    }
}

fn policy(args: &Args, name: &Ident, private: &TokenStream) -> TokenStream {
    let name = name.to_string();
    let name = format!("::{}", name.trim_start_matches("r#"));
    let mut policy = quote! {
        #private::Policy::new(::core::concat!(::core::module_path!(), #name))
    };
    let mut set = |call: TokenStream| policy.extend(call);
    if let Some(millis) = args.ttl_millis.map(number) {
        set(quote!(.ttl_millis(#millis)));
    }
    if args.required {
        set(quote!(.required()));
    }
    if let Some(statuses) = &args.record {
        let statuses = statuses.expand(private);
        set(quote!(.record(#statuses)));
    }
    if args.record_rejections {
        set(quote!(.record_rejections()));
    }
    if let Some(millis) = args.wait_millis.map(number) {
        set(quote!(.wait_millis(#millis)));
    }
    if args.hold_unknown {
        set(quote!(.hold_unknown()));
    }
    if let Some(fingerprint) = &args.fingerprint {
        let fingerprint = fingerprint.expand(private);
        set(quote!(.fingerprint(#fingerprint)));
    }
    policy
}

/// The number as a person writes it, `86_400_000`.
fn number(number: u64) -> TokenStream {
    let digits = number.to_string();
    let mut written = String::new();
    for (at, digit) in digits.char_indices() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            written.push('_');
        }
        written.push(digit);
    }
    written.parse().unwrap_or_else(|_| number.to_token_stream())
}

/// `__IDEM_POLICY.admit(order).token()`
fn admit(args: &Args, plan: &Plan, arguments: &Arguments<'_>) -> TokenStream {
    let body = arguments.deferred();
    let scope = plan.parts.iter().map(|part| part.expand(arguments));
    let Some(runtime) = &args.runtime else {
        return quote!(__IDEM_POLICY.admit(#body) #(#scope)*);
    };
    let span = Span::call_site().located_at(runtime.span());
    let (opened, runtime) = arguments.opened(runtime, &plan.runtime_names);
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
    // A complaint about the runtime's type is about the call; it belongs to the user's expression.
    let admit = quote_spanned!(span=> __IDEM_POLICY.admit_on(#body, #runtime));
    quote!(#admit #(#scope)*)
}

/// `.run(async move |Json(order)| { … })`, all of it spanned at the type that the
/// user declared: a future that is not `Send` and an answer that is none are then reported there,
/// and once.
fn run(args: &Args, arguments: &Arguments<'_>, handler: &Handler) -> TokenStream {
    let span = returns::span(&handler.sig);
    let admitted = arguments.admitted();
    let moved = arguments.moved();
    let taken_apart = arguments.taken_apart();
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

/// Type parameters live as long as a handler that runs on after its client went away.
fn outliving(generics: &Generics) -> Generics {
    let mut generics = generics.clone();
    let names: Vec<Ident> = generics
        .type_params()
        .map(|param| param.ident.clone())
        .collect();
    for name in names {
        let mut missing: Vec<TypeParamBound> = Vec::new();
        if !has_bound(&generics, &name, "Send") {
            missing.push(parse_quote!(::core::marker::Send));
        }
        if !has_bound(&generics, &name, "'static") {
            missing.push(parse_quote!('static));
        }
        bounds_of(&mut generics, &name, |bounds| bounds.extend(missing));
    }
    generics
}

fn has_bound(generics: &Generics, name: &Ident, wanted: &str) -> bool {
    let inline = generics.type_params().filter(|param| param.ident == *name);
    let inline = inline.flat_map(|param| &param.bounds);
    let clause = generics
        .where_clause
        .iter()
        .flat_map(|clause| &clause.predicates);
    let clause = clause.filter_map(|predicate| match predicate {
        WherePredicate::Type(predicate) if is_type(&predicate.bounded_ty, name) => {
            Some(&predicate.bounds)
        }
        _ => None,
    });
    inline.chain(clause.flatten()).any(|bound| match bound {
        TypeParamBound::Trait(bound) => is_marker(&bound.path, wanted),
        TypeParamBound::Lifetime(lifetime) => lifetime.to_string() == wanted,
        _ => false,
    })
}

/// `Send`, or its path in `core` or `std`.
fn is_marker(path: &Path, name: &str) -> bool {
    let mut segments = path.segments.iter().rev();
    let is_named = segments.next().is_some_and(|last| last.ident == name);
    let mut modules = segments.map(|segment| segment.ident.to_string());
    is_named
        && match modules.next().as_deref() {
            None => true,
            Some("marker") => modules.all(|module| matches!(&*module, "core" | "std")),
            Some(_) => false,
        }
}

/// Bounds stay where the user wrote the others, in the `where` clause or beside the name.
fn bounds_of(generics: &mut Generics, name: &Ident, change: impl FnOnce(&mut Bounds)) {
    let clause = generics
        .where_clause
        .iter_mut()
        .flat_map(|clause| &mut clause.predicates);
    for predicate in clause {
        if let WherePredicate::Type(predicate) = predicate
            && predicate.lifetimes.is_none()
            && is_type(&predicate.bounded_ty, name)
        {
            return change(&mut predicate.bounds);
        }
    }
    if let Some(param) = generics
        .type_params_mut()
        .find(|param| param.ident == *name)
    {
        change(&mut param.bounds);
    }
}

type Bounds = Punctuated<TypeParamBound, Token![+]>;

fn is_type(ty: &Type, name: &Ident) -> bool {
    matches!(ty, Type::Path(path) if path.qself.is_none() && path.path.is_ident(name))
}

//! How the handler's arguments get into the user's future, and stay until it ends.

use proc_macro2::{Ident, Span, TokenStream};
use quote::{ToTokens, quote, quote_spanned};
use syn::spanned::Spanned as _;
use syn::{Attribute, Expr, ExprPath, Pat};

use crate::check::scope::Part;
use crate::check::signature::Plan;
use crate::expand::function::private;
use crate::parse::attribute::Args;
use crate::parse::handler::{Argument, Handler};
use crate::parse::{names, patterns};

/// The arguments under the names that they have in the expansion.
pub(crate) struct Arguments<'a> {
    head: Vec<Parameter<'a>>,
    last: Option<Parameter<'a>>,
    /// The name by which the scope or the runtime uses the last argument, which is then extracted
    /// before the claim.
    last_named: Option<&'a Ident>,
    /// The name of the last argument while it is wrapped.
    wrapped: Ident,
    /// The names that the scope or the runtime uses and the body does not.
    used_outside: Vec<Ident>,
}

/// An argument whose variables hold all of its value is moved by them. Of any other the whole
/// value is moved, under a name of ours, and taken apart where the handler runs: the rest of it,
/// a permit or a transaction perhaps, then lives as long as the handler does.
///
/// An argument with a variable that nothing uses is moved whole too. The compiler then warns of
/// that variable where it is taken out.
struct Parameter<'a> {
    argument: &'a Argument,
    whole: Option<Ident>,
}

impl<'a> Arguments<'a> {
    /// With `is_seen`, another attribute macro sees the arguments under their names, such as
    /// `#[instrument(skip(order))]`.
    pub(crate) fn of(handler: &'a Handler, plan: &'a Plan, is_seen: bool) -> Self {
        // An editor completes names in a half-typed body.
        let keep_names = is_seen || handler.is_half_typed;
        let mut inside = Vec::new();
        names::mentions(handler.body.clone().unwrap_or_default(), &mut inside);
        let mut used_outside: Vec<Ident> = plan.parts.iter().flat_map(Part::names).collect();
        used_outside.extend(plan.runtime_names.iter().cloned());
        let is_inside = |name: &Ident| inside.iter().any(|inside| name == inside);
        let is_used = |name: &Ident| {
            name.to_string().starts_with('_') || is_inside(name) || used_outside.contains(name)
        };
        let parameter = |(at, argument): (usize, &'a Argument)| {
            let is_used = keep_names || argument.bindings.iter().all(is_used);
            let whole = (!argument.held || !is_used).then(|| local(&format!("__idem_arg_{at}")));
            Parameter { argument, whole }
        };
        let mut head: Vec<_> = handler
            .arguments
            .iter()
            .enumerate()
            .map(parameter)
            .collect();
        let last = head.pop();
        let wrapped = match handler.last().map(|last| &last.bindings[..]) {
            Some([name]) if !name.to_string().starts_with('_') => name.clone(),
            _ => local("__idem_body"),
        };
        used_outside.retain(|name| !is_inside(name));
        Self {
            head,
            last,
            last_named: plan.last_named.as_ref(),
            wrapped,
            used_outside,
        }
    }

    /// The arguments that are extracted before the claim.
    fn extracted(&self) -> impl DoubleEndedIterator<Item = &Parameter<'a>> {
        let last = self.last.iter().filter(|_| self.last_named.is_some());
        self.head.iter().chain(last)
    }

    /// The head arguments as the function declares them.
    pub(crate) fn head_declarations(&self) -> impl Iterator<Item = TokenStream> {
        self.head.iter().map(|parameter| {
            let (pattern, ty) = (parameter.pattern(), &parameter.argument.ty);
            let attrs = parameter.argument.attrs.iter();
            let attrs = attrs.filter(|attr| parameter.whole.is_none() || !is_lint(attr));
            quote!(#(#attrs)* #pattern: #ty)
        })
    }

    /// The last argument as the function declares it.
    pub(crate) fn last_declaration(&self, args: &Args) -> TokenStream {
        // A complaint about the wrapped type is one about the type that the user wrote.
        let (attrs, ty, span) = match &self.last {
            None => (&[][..], quote!(()), Span::call_site()),
            Some(Parameter { argument, .. }) => {
                let Argument { attrs, ty, .. } = argument;
                (&attrs[..], ty.to_token_stream(), ty.span())
            }
        };
        let wrapper = if self.last_named.is_some() {
            Ident::new("Headed", span)
        } else {
            Ident::new("Deferred", span)
        };
        // What a request without a key gets depends on more than the request's head.
        let lazy = (args.required || args.runtime.is_some()).then(|| quote!(, true));
        let (name, private) = (&self.wrapped, private(args, span));
        // The lints expect something of the argument itself, and not of its wrapper.
        let attrs = attrs.iter().map(|attr| {
            let mut attr = attr.clone();
            if attr.path().is_ident("expect")
                && let syn::Meta::List(list) = &mut attr.meta
            {
                list.path = syn::parse_quote!(allow);
            }
            attr
        });
        quote_spanned!(span=> #(#attrs)* #name: #private::#wrapper<#ty #lazy>)
    }

    /// Takes the last argument out of its wrapper, where the scope has to look at it.
    pub(crate) fn split(&self, args: &Args) -> TokenStream {
        let (Some(last), Some(named)) = (&self.last, self.last_named) else {
            return TokenStream::new();
        };
        let (pattern, body, wrapped) = (last.pattern(), local("__idem_body"), &self.wrapped);
        let private = private(args, Span::call_site());
        let lints = last.lints().filter(|_| last.whole.is_none());
        // That it reads the body, if it does, is a complaint about the name in the scope.
        let split = quote_spanned!(named.span()=> .split());
        quote! {
            use #private::Split as _;
            #(#lints)*
            let (#pattern, #body) = #wrapped #split;
        }
    }

    /// What is handed over to be admitted.
    pub(crate) fn deferred(&self) -> Ident {
        if self.last_named.is_some() {
            local("__idem_body")
        } else {
            self.wrapped.clone()
        }
    }

    /// What a request that is admitted gets of the last argument.
    pub(crate) fn admitted(&self) -> TokenStream {
        match &self.last {
            Some(last) if self.last_named.is_none() => {
                let (lints, pattern) = (last.lints(), &last.argument.pat);
                quote!(#(#lints)* #pattern)
            }
            _ => quote!(()),
        }
    }

    /// An expression over the arguments, and the statements that it needs: they make the variables
    /// visible that only the handler's own future takes out of their argument.
    pub(crate) fn opened(&self, value: &Expr, named: &[Ident]) -> (TokenStream, Opened) {
        let mut opened = TokenStream::new();
        let mut references = Vec::new();
        for Parameter { argument, whole } in self.extracted() {
            let named = named.iter().filter(|name| argument.binds(name));
            let named: Vec<Ident> = named.cloned().collect();
            let Some(whole) = whole.as_ref().filter(|_| !named.is_empty()) else {
                continue;
            };
            let pattern = patterns::by_reference(&argument.pat, &named);
            opened.extend(quote!(let #pattern = &#whole;));
            references.extend(named.into_iter().map(|name| (name, argument)));
        }
        let is_reference = |path: &ExprPath| {
            let name = path.path.get_ident();
            name.is_some_and(|name| references.iter().any(|(reference, _)| reference == name))
        };
        let value = match value {
            Expr::Path(path) if is_reference(path) => Opened::Reference(value.to_token_stream()),
            value => {
                // By `ref` it is a reference in the body too.
                references
                    .retain(|(name, argument)| !patterns::references(&argument.pat).contains(name));
                let values: Vec<Ident> = references.into_iter().map(|(name, _)| name).collect();
                Opened::Value(names::dereferenced(value, &values))
            }
        };
        (opened, value)
    }

    /// Moves every argument into the handler's future, also one that the body never names.
    ///
    /// A future drops what it captured in the order in which it was first named; from last to
    /// first is how a function drops its arguments.
    pub(crate) fn moved(&self) -> TokenStream {
        let mut names: Vec<&Ident> = Vec::new();
        for Parameter { argument, whole } in self.extracted().rev() {
            match whole {
                Some(whole) => names.push(whole),
                None => names.extend(argument.bindings.iter().rev()),
            }
        }
        used(&names)
    }

    /// Takes the whole values apart, by the patterns that the user wrote.
    pub(crate) fn taken_apart(&self) -> TokenStream {
        let mut lets = TokenStream::new();
        let mut used_outside: Vec<&Ident> = Vec::new();
        for parameter in self.extracted() {
            let (argument, pattern) = (parameter.argument, &parameter.argument.pat);
            if let Some(whole) = &parameter.whole
                && !matches!(pattern, Pat::Wild(_))
            {
                let lints = parameter.lints();
                lets.extend(quote!(#(#lints)* let #pattern = #whole;));
                let names = self.used_outside.iter();
                used_outside.extend(names.filter(|name| argument.binds(name)));
            }
        }
        lets.extend(used(&used_outside));
        lets
    }
}

/// An expression whose variables are visible.
pub(crate) enum Opened {
    Value(Expr),
    /// It is a variable that was taken out by reference.
    Reference(TokenStream),
}

impl Parameter<'_> {
    /// The pattern under which it is passed on until the handler runs.
    fn pattern(&self) -> TokenStream {
        let Some(whole) = &self.whole else {
            return self.argument.pat.to_token_stream();
        };
        let mutability = patterns::borrows_mutably(&self.argument.pat).then(|| quote!(mut));
        quote!(#mutability #whole)
    }

    /// The lints that the user set for it.
    fn lints(&self) -> impl Iterator<Item = &Attribute> {
        self.argument.attrs.iter().filter(|attr| is_lint(attr))
    }
}

fn is_lint(attr: &Attribute) -> bool {
    let levels = ["allow", "expect", "warn", "deny", "forbid"];
    levels.iter().any(|level| attr.path().is_ident(level))
}

/// A statement that uses the variables and does nothing.
fn used(names: &[&Ident]) -> TokenStream {
    let is_underscored = names.iter().any(|name| {
        let name = name.to_string();
        name.starts_with('_') && !name.starts_with("__")
    });
    let lint = is_underscored.then(|| quote!(#[allow(clippy::used_underscore_binding)]));
    match names {
        [] => TokenStream::new(),
        [name] => quote!(#lint let _ = &#name;),
        names => quote!(#lint let _ = (#(&#names),*);),
    }
}

/// A name that no code of the user's can see.
pub(crate) fn local(name: &str) -> Ident {
    Ident::new(name, Span::mixed_site())
}

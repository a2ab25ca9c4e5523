//! Moves the handler's parameters into the user's future, where they live until it ends.

use proc_macro2::{Ident, Span, TokenStream, TokenTree};
use quote::{ToTokens, quote, quote_spanned};
use syn::ext::IdentExt as _;
use syn::spanned::Spanned as _;
use syn::{Attribute, Expr, ExprPath, Pat, Type};

use crate::check::plan::Plan;
use crate::expand::facade::private;
use crate::parse::attribute_args::AttributeArgs;
use crate::parse::handler::{Handler, Parameter};
use crate::parse::names;
use crate::parse::patterns::{self, is_same};
use crate::parse::request_types::key_type;

/// The parameters, with their names in the expansion.
pub(crate) struct Parameters<'a> {
    head: Vec<Carried<'a>>,
    last: Option<Carried<'a>>,
    /// The name by which the scope or the runtime uses the last parameter, which is then extracted
    /// before the claim.
    last_named: Option<&'a Ident>,
    /// The name of the last parameter while it is wrapped.
    wrapped: Ident,
    /// The type that documents the handler, around the wrapper of the last parameter.
    declared: Option<TokenStream>,
    /// The names that the scope or the runtime uses and the body does not.
    used_outside: Vec<Ident>,
}

/// A parameter, and how its value moves into the handler's future.
///
/// If the variables of the pattern hold the whole value, the variables are moved. Otherwise the whole
/// value is moved under a generated name, and the handler's future applies the pattern. The rest of the
/// value, such as a permit or a transaction, then lives as long as the handler.
///
/// A parameter with an unused variable is also moved as a whole. The compiler then warns about the
/// variable where the pattern is applied.
///
/// So is a parameter with a `mut` variable, because the compiler warns about an assignment to a captured variable that
/// the body does not read again. A parameter after such a parameter is too, so that all are dropped in the order of a
/// plain function.
struct Carried<'a> {
    parameter: &'a Parameter,
    /// The generated name, if the whole value is moved.
    whole: Option<Ident>,
    /// The value is the key that the endpoint chooses. It is extracted before the key is known, so its type
    /// is a wrapper.
    is_key: bool,
    /// The value is the last parameter, and the handler's future applies its pattern after those of the others.
    follows: bool,
}

impl<'a> Parameters<'a> {
    /// With `is_seen`, the parameters keep their names, because another attribute macro may use them, such
    /// as `#[instrument(skip(order))]`.
    pub(crate) fn of(
        handler: &'a Handler,
        plan: &'a Plan,
        is_seen: bool,
        declared: Option<TokenStream>,
    ) -> Self {
        // An editor completes names in a half-typed body.
        let keep_names = is_seen || handler.is_half_typed;
        let inside = names::mentions(handler.body.clone().unwrap_or_default());
        let mut used_outside: Vec<Ident> = plan.names().collect();
        let is_inside = |name: &Ident| inside.contains(&name.unraw().to_string());
        let is_used = |name: &Ident| {
            let is_outside = || used_outside.iter().any(|outside| is_same(outside, name));
            name.to_string().starts_with('_') || is_inside(name) || is_outside()
        };
        // The last parameter is captured only if it is extracted before the claim.
        let captured = match plan.last_named {
            Some(_) => &handler.parameters[..],
            None => handler.head(),
        };
        let is_mutable = |it: &Parameter| it.held && patterns::is_mutable(&it.pat);
        let mutable = captured.iter().position(is_mutable);
        let mutable = mutable.filter(|_| !keep_names).unwrap_or(usize::MAX);
        let carried = |(at, parameter): (usize, &'a Parameter)| {
            let is_used = keep_names || parameter.bindings.iter().all(is_used);
            let is_key = plan.key.is_some() && key_type(&parameter.ty).is_some();
            let is_whole = is_key || !parameter.held || !is_used || at >= mutable;
            let whole = is_whole.then(|| local(&format!("__idem_arg_{at}")));
            // A `mut` variable keeps its name outside of the future.
            let same = || match &parameter.pat {
                Pat::Ident(pat) if is_seen && is_mutable(parameter) && is_inside(&pat.ident) => {
                    Some(pat.ident.clone())
                }
                _ => None,
            };
            Carried {
                parameter,
                whole: whole.or_else(same),
                is_key,
                follows: at > mutable && at >= captured.len(),
            }
        };
        let mut head: Vec<_> = handler.parameters.iter().enumerate().map(carried).collect();
        let last = head.pop();
        let wrapped = match handler.last().map(|last| &last.bindings[..]) {
            Some([name]) if !name.to_string().starts_with('_') => {
                let mut name = name.clone();
                // Otherwise clippy finds that the variable of the body shadows the wrapper. An error about `split`
                // needs the user's name.
                if !keep_names && plan.last_named.is_none() {
                    name.set_span(Span::mixed_site().located_at(name.span()));
                }
                name
            }
            _ => local("__idem_body"),
        };
        used_outside.retain(|name| !is_inside(name));
        Self {
            head,
            last,
            last_named: plan.last_named.as_ref(),
            wrapped,
            declared,
            used_outside,
        }
    }

    /// Returns the parameters that are extracted before the claim.
    fn extracted(&self) -> impl DoubleEndedIterator<Item = &Carried<'a>> {
        let last = self.last.iter().filter(|_| self.last_named.is_some());
        self.head.iter().chain(last)
    }

    /// Returns the declarations of the head parameters.
    pub(crate) fn head_declarations(
        &self,
        args: &AttributeArgs,
    ) -> impl Iterator<Item = TokenStream> {
        self.head.iter().map(|carried| {
            let (pattern, ty) = (carried.pattern(), carried.ty(args));
            let attrs = carried.parameter.attrs.iter();
            let attrs = attrs.filter(|attr| carried.whole.is_none() || !is_lint(attr));
            quote!(#(#attrs)* #pattern: #ty)
        })
    }

    /// Returns the declaration of the last parameter.
    pub(crate) fn last_declaration(&self, args: &AttributeArgs) -> TokenStream {
        // The compiler reports a wrong type of the parameter at the wrapper, so the wrapper has the place
        // of the type that the user wrote. It has the hygiene of the macro, so that clippy does not find the type
        // too complex.
        let (attrs, ty, span) = match &self.last {
            None => (&[][..], quote!(()), Span::call_site()),
            Some(last) => {
                let Parameter { attrs, ty, .. } = last.parameter;
                (&attrs[..], last.ty(args), wrapping(ty))
            }
        };
        let wrapper = if self.last_named.is_some() {
            Ident::new("Headed", span)
        } else {
            Ident::new("Deferred", span)
        };
        // Without a key, the response depends on more than the head of the request.
        let is_lazy = args.required || args.runtime.is_some() || args.key.is_some();
        let lazy = is_lazy.then(|| quote!(, true));
        let (name, private) = (&self.wrapped, private(args, span));
        // An expected lint would fire for the parameter, not for its wrapper.
        let attrs = attrs.iter().map(|attr| {
            let mut attr = attr.clone();
            if let syn::Meta::List(list) = &mut attr.meta {
                if list.path.is_ident("expect") {
                    list.path = syn::parse_quote!(allow);
                } else if list.path.is_ident("cfg_attr") {
                    list.tokens = allowing(list.tokens.clone());
                }
            }
            attr
        });
        let mut ty = quote_spanned!(span=> #private::#wrapper<#ty #lazy>);
        if let Some(declared) = &self.declared {
            ty = quote_spanned!(span=> #private::Described<#ty, #declared>);
        }
        quote!(#(#attrs)* #name: #ty)
    }

    /// Takes the last parameter out of its wrapper, if the scope or the runtime uses it.
    pub(crate) fn split(&self, args: &AttributeArgs) -> TokenStream {
        let (Some(last), Some(named)) = (&self.last, self.last_named) else {
            return TokenStream::new();
        };
        let (pattern, body, wrapped) = (last.pattern(), local("__idem_body"), self.undescribed());
        let private = private(args, Span::call_site());
        let lints = last.lints().filter(|_| last.whole.is_none());
        // If the parameter reads the body, the compiler reports that at its name in the scope.
        // It looks for the place of the receiver too, and a name of the macro has the place of the attribute.
        let (receiver, renamed) = if self.wrapped == "__idem_body" || self.declared.is_some() {
            let receiver = Ident::new("__idem_last", named.span());
            let renamed = quote!(let #receiver = #wrapped;);
            (receiver.into_token_stream(), renamed)
        } else {
            (wrapped, TokenStream::new())
        };
        let split = quote_spanned!(named.span()=> .split());
        quote! {
            use #private::Split as _;
            #renamed
            #(#lints)*
            let (#pattern, #body) = #receiver #split;
        }
    }

    /// Returns what is passed to `admit`.
    pub(crate) fn deferred(&self) -> TokenStream {
        if self.last_named.is_some() {
            local("__idem_body").into_token_stream()
        } else {
            self.undescribed()
        }
    }

    /// Returns the last parameter in its wrapper.
    fn undescribed(&self) -> TokenStream {
        let wrapped = &self.wrapped;
        let taken_out = self.declared.as_ref().map(|_| quote!(.undescribed()));
        quote!(#wrapped #taken_out)
    }

    /// Returns the pattern of the closure that an admitted request runs.
    pub(crate) fn admitted(&self) -> TokenStream {
        match &self.last {
            Some(last) if last.is_applied_later() && self.last_named.is_none() => {
                last.whole.to_token_stream()
            }
            Some(last) if self.last_named.is_none() => {
                let (lints, pattern) = (last.lints(), &last.parameter.pat);
                quote!(#(#lints)* #pattern)
            }
            _ => quote!(()),
        }
    }

    /// Returns the statements that an expression over the parameters needs, and the expression.
    ///
    /// The statements bind, by reference, the variables of each parameter that is moved as a whole.
    pub(crate) fn opened(&self, value: &Expr, named: &[Ident]) -> (TokenStream, Opened) {
        let mut opened = TokenStream::new();
        let mut references = Vec::new();
        for Carried {
            parameter, whole, ..
        } in self.extracted()
        {
            let named = named.iter().filter(|name| parameter.binds(name));
            let named: Vec<Ident> = named.cloned().collect();
            let Some(whole) = whole.as_ref().filter(|_| !named.is_empty()) else {
                continue;
            };
            let pattern = patterns::by_reference(&parameter.pat, &named);
            opened.extend(quote!(let #pattern = &#whole;));
            references.extend(named.into_iter().map(|name| (name, parameter)));
        }
        let is_reference = |path: &ExprPath| {
            let name = path.path.get_ident();
            name.is_some_and(|name| {
                (references.iter()).any(|(reference, _)| is_same(reference, name))
            })
        };
        let value = match value {
            Expr::Path(path) if is_reference(path) => Opened::Reference(value.to_token_stream()),
            value => {
                // These variables are references in the body too.
                references.retain(|(name, Parameter { pat, ty, .. })| {
                    let mut references = patterns::references(pat);
                    references.extend(patterns::behind_references(pat, ty));
                    !references.iter().any(|reference| is_same(reference, name))
                });
                let values: Vec<Ident> = references.into_iter().map(|(name, _)| name).collect();
                Opened::Value(names::dereferenced(value, &values))
            }
        };
        (opened, value)
    }

    /// Moves every parameter into the handler's future, even if the body does not use the parameter.
    ///
    /// A future drops its captures in the order in which they are first used. Using them from last to
    /// first drops them in the same order as a function drops its parameters.
    pub(crate) fn moved(&self) -> TokenStream {
        let mut names: Vec<&Ident> = Vec::new();
        for Carried {
            parameter, whole, ..
        } in self.extracted().rev()
        {
            match whole {
                Some(whole) => names.push(whole),
                None => names.extend(parameter.bindings.iter().rev()),
            }
        }
        used(&names)
    }

    /// Applies the user's patterns to the values that were moved as a whole.
    pub(crate) fn taken_apart(&self) -> TokenStream {
        let mut lets = TokenStream::new();
        let mut used_outside: Vec<&Ident> = Vec::new();
        let is_admitted =
            |last: &&Carried<'_>| last.is_applied_later() && self.last_named.is_none();
        let admitted = self.last.iter().filter(is_admitted);
        for carried in self.extracted().chain(admitted) {
            let (parameter, pattern) = (carried.parameter, &carried.parameter.pat);
            if let Some(whole) = &carried.whole
                && !matches!(pattern, Pat::Wild(_))
            {
                let lints = carried.lints();
                // The compiler shows a type of another crate with the same name here.
                let place = parameter.ty.span();
                let take = carried.is_key.then(|| quote_spanned!(place=> .take()));
                lets.extend(quote!(#(#lints)* let #pattern = #whole #take;));
                let names = self.used_outside.iter();
                used_outside.extend(names.filter(|name| parameter.binds(name)));
            }
        }
        lets.extend(used(&used_outside));
        lets
    }
}

/// An expression whose variables are in scope.
pub(crate) enum Opened {
    Value(Expr),
    /// A variable that is bound by reference.
    Reference(TokenStream),
}

impl Carried<'_> {
    /// Returns whether the future applies the pattern, if this is the last parameter.
    fn is_applied_later(&self) -> bool {
        self.is_key || self.follows
    }

    /// Returns the type of the declaration.
    fn ty(&self, args: &AttributeArgs) -> TokenStream {
        let ty = &self.parameter.ty;
        if !self.is_key {
            return ty.to_token_stream();
        }
        let private = private(args, wrapping(ty));
        quote_spanned!(wrapping(ty)=> #private::KeyArgument<#ty>)
    }

    /// Returns the pattern that binds the value until the handler runs.
    fn pattern(&self) -> TokenStream {
        let Some(whole) = &self.whole else {
            return self.parameter.pat.to_token_stream();
        };
        let mutability = patterns::borrows_mutably(&self.parameter.pat).then(|| quote!(mut));
        quote!(#mutability #whole)
    }

    /// Returns the lint attributes that the user wrote on the parameter.
    fn lints(&self) -> impl Iterator<Item = &Attribute> {
        self.parameter.attrs.iter().filter(|attr| is_lint(attr))
    }
}

/// Returns whether the attribute sets the level of a lint. Nothing else is a `cfg_attr` on a parameter.
fn is_lint(attr: &Attribute) -> bool {
    let levels = ["allow", "expect", "warn", "deny", "forbid", "cfg_attr"];
    levels.iter().any(|level| attr.path().is_ident(level))
}

/// Returns the span of a wrapper around the type.
fn wrapping(ty: &Type) -> Span {
    Span::call_site().located_at(ty.span())
}

/// Returns the tokens of a `cfg_attr` with `allow` in the place of `expect`.
fn allowing(tokens: TokenStream) -> TokenStream {
    let allowed = tokens.into_iter().map(|token| match token {
        TokenTree::Ident(word) if word == "expect" => Ident::new("allow", word.span()).into(),
        token => token,
    });
    allowed.collect()
}

/// Returns a statement that uses the variables and has no effect.
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

/// Returns a hygienic name, which the user's code cannot use.
pub(crate) fn local(name: &str) -> Ident {
    Ident::new(name, Span::mixed_site())
}

//! How the handler's arguments get into the user's future, and stay until it ends.

use proc_macro2::{Ident, Span, TokenStream};
use quote::{ToTokens, quote, quote_spanned};
use syn::spanned::Spanned as _;

use crate::args::Args;
use crate::check::Plan;
use crate::expand::private;
use crate::handler::{Argument, Handler};
use crate::patterns;

/// The arguments under the names that they have in the expansion.
pub(crate) struct Arguments<'a> {
    head: Vec<Parameter<'a>>,
    last: Option<Parameter<'a>>,
}

/// An argument whose variables hold all of its value is moved by them. Of any other the whole
/// value is moved, under a name of ours, and taken apart where the handler runs: the rest of it,
/// a permit or a transaction perhaps, then lives as long as the handler does.
struct Parameter<'a> {
    argument: &'a Argument,
    whole: Option<Ident>,
}

impl<'a> Arguments<'a> {
    pub(crate) fn of(handler: &'a Handler) -> Self {
        let mut head: Vec<_> = handler
            .arguments
            .iter()
            .enumerate()
            .map(Parameter::new)
            .collect();
        let last = head.pop();
        Self { head, last }
    }

    fn all(&self) -> impl DoubleEndedIterator<Item = &Parameter<'a>> {
        self.head.iter().chain(&self.last)
    }

    /// The head arguments as the function declares them.
    pub(crate) fn head_declarations(&self) -> impl Iterator<Item = TokenStream> {
        self.head.iter().map(|parameter| {
            let Argument { attrs, ty, .. } = parameter.argument;
            let pattern = parameter.pattern();
            quote!(#(#attrs)* #pattern: #ty)
        })
    }

    /// The last argument as the function declares it.
    pub(crate) fn last_declaration(&self, args: &Args, plan: &Plan) -> TokenStream {
        // A complaint about the wrapped type is one about the type that the user wrote.
        let (attrs, ty, span) = match &self.last {
            None => (&[][..], quote!(()), Span::call_site()),
            Some(Parameter { argument, .. }) => {
                let Argument { attrs, ty, .. } = argument;
                (&attrs[..], ty.to_token_stream(), ty.span())
            }
        };
        let wrapper = if plan.last_named.is_some() {
            Ident::new("Headed", span)
        } else {
            Ident::new("Deferred", span)
        };
        // What a request without a key gets depends on more than the request's head.
        let lazy = (args.required || args.runtime.is_some()).then(|| quote!(, true));
        let (name, private) = (self.wrapped_name(), private(args, span));
        quote_spanned!(span=> #(#attrs)* #name: #private::#wrapper<#ty #lazy>)
    }

    /// The last argument's own name where it has one, so that `#[instrument(skip(order))]` below
    /// the attribute finds it.
    fn wrapped_name(&self) -> Ident {
        match self.last.as_ref().map(|last| &last.argument.bindings[..]) {
            Some([name]) if !name.to_string().starts_with('_') => name.clone(),
            _ => local("__idem_body"),
        }
    }

    /// Takes the last argument out of its wrapper, where the scope has to look at it.
    pub(crate) fn split(&self, args: &Args, plan: &Plan) -> TokenStream {
        let (Some(last), Some(named)) = (&self.last, &plan.last_named) else {
            return TokenStream::new();
        };
        let (pattern, body, wrapped) = (last.pattern(), local("__idem_body"), self.wrapped_name());
        let private = private(args, Span::call_site());
        // That it reads the body, if it does, is a complaint about the name in the scope.
        let split = quote_spanned!(named.span()=> .split());
        quote! {
            use #private::Split as _;
            let (#pattern, #body) = #wrapped #split;
        }
    }

    /// What is handed over to be admitted.
    pub(crate) fn deferred(&self, plan: &Plan) -> Ident {
        if plan.last_named.is_some() {
            local("__idem_body")
        } else {
            self.wrapped_name()
        }
    }

    /// What a request that is admitted gets of the last argument.
    pub(crate) fn admitted(&self, plan: &Plan) -> TokenStream {
        match &self.last {
            Some(last) if plan.last_named.is_none() => last.pattern(),
            _ => quote!(()),
        }
    }

    /// Makes the variables named by `names` visible that only the handler's own future takes out
    /// of their argument.
    pub(crate) fn opened(&self, names: &[Ident]) -> TokenStream {
        let mut opened = TokenStream::new();
        for Parameter { argument, whole } in self.all() {
            let Some(whole) = whole else { continue };
            if names.iter().any(|name| argument.binds(name)) {
                let pattern = patterns::by_reference(&argument.pat, names);
                opened.extend(quote!(let #pattern = &#whole;));
            }
        }
        opened
    }

    /// Whether `name` is a variable that is visible only so.
    pub(crate) fn opens(&self, name: &Ident) -> bool {
        self.all()
            .any(|parameter| parameter.whole.is_some() && parameter.argument.binds(name))
    }

    /// Moves every argument into the handler's future, also one that the body never names.
    ///
    /// A future drops what it captured in the order in which it was first named; from last to
    /// first is how a function drops its arguments.
    pub(crate) fn moved(&self) -> TokenStream {
        let mut names: Vec<&Ident> = Vec::new();
        for Parameter { argument, whole } in self.all().rev() {
            match whole {
                Some(whole) => names.push(whole),
                None => names.extend(argument.bindings.iter().rev()),
            }
        }
        let lint = names.iter().any(|name| {
            let name = name.to_string();
            name.starts_with('_') && !name.starts_with("__")
        });
        let lint = lint.then(|| quote!(#[allow(clippy::used_underscore_binding)]));
        match &names[..] {
            [] => TokenStream::new(),
            [name] => quote!(#lint let _ = &#name;),
            names => quote!(#lint let _ = (#(&#names),*);),
        }
    }

    /// Takes the whole values apart, by the patterns that the user wrote.
    pub(crate) fn taken_apart(&self) -> TokenStream {
        let mut lets = TokenStream::new();
        for Parameter { argument, whole } in self.all() {
            if let (Some(whole), pattern) = (whole, &argument.pat)
                && !matches!(pattern, syn::Pat::Wild(_))
            {
                lets.extend(quote!(let #pattern = #whole;));
            }
        }
        lets
    }
}

impl<'a> Parameter<'a> {
    fn new((at, argument): (usize, &'a Argument)) -> Self {
        let whole = (!argument.held).then(|| local(&format!("__idem_arg_{at}")));
        Self { argument, whole }
    }

    fn pattern(&self) -> TokenStream {
        let as_written = || self.argument.pat.to_token_stream();
        self.whole
            .as_ref()
            .map_or_else(as_written, ToTokens::to_token_stream)
    }
}

/// A name that no code of the user's can see.
pub(crate) fn local(name: &str) -> Ident {
    Ident::new(name, Span::mixed_site())
}

//! Every rule about the handler, and those between it and the arguments, in one place.

use proc_macro2::{Ident, Span};
use quote::ToTokens;
use syn::visit::{self, Visit};
use syn::{
    Expr, GenericParam, Lifetime, ParenthesizedGenericArguments, ReturnType, Safety, Type,
    TypeFnPtr, TypeImplTrait, TypeReference,
};

use crate::check::scope::{self, Part};
use crate::check::scope_names::{Names, not_at_once};
use crate::expand::fallback::Repair;
use crate::messages::mistakes::Mistakes;
use crate::messages::words::code;
use crate::parse::attribute::Args;
use crate::parse::body_extractors::body_extractor;
use crate::parse::handler::{Argument, Handler};
use crate::parse::names;

/// What axum's own `Handler` takes.
const MOST_ARGUMENTS: usize = 16;

/// What the expansion needs to know beyond the arguments themselves.
pub(crate) struct Plan {
    pub(crate) parts: Vec<Part>,
    /// The name of the last argument's that the scope or the runtime uses, so that it reads no body.
    pub(crate) last_named: Option<Ident>,
    /// The names that the scope may use, and those that the runtime may.
    pub(crate) runtime_names: Vec<Ident>,
}

/// Checks the function itself, and says what keeps it a handler for the rest of the crate.
pub(crate) fn signature(handler: &Handler, mistakes: &mut Mistakes) -> Repair {
    let sig = &handler.sig;
    let mut repair = Repair::AsWritten;
    if handler.body.is_none() {
        mistakes.at_span(
            sig.ident.span(),
            "a method without a body is no handler; put the attribute on an `async fn` with a body",
        );
        return repair;
    }
    if let Some(lifetime) = of_async_trait(handler) {
        mistakes.at_span(
            lifetime,
            "`#[async_trait]` has rewritten this function before `#[idempotent]` sees it; move the \
             body into an `async fn` outside the trait, and put the attribute on that",
        );
        return repair;
    }
    if let Some(constness) = &sig.constness {
        mistakes.at(constness, "a handler cannot be `const`; write `async fn`");
        repair = Repair::Qualifiers;
    } else if sig.asyncness.is_none() {
        mistakes.at_span(sig.fn_token.span, "a handler is `async`; write `async fn`");
        repair = Repair::Qualifiers;
    }
    if let Safety::Unsafe(unsafety) = &sig.safety {
        mistakes.at(
            unsafety,
            "a handler cannot be `unsafe`; leave it out, and write an `unsafe` block inside",
        );
        repair = Repair::Qualifiers;
    }
    if let Some(abi) = &sig.abi {
        mistakes.at(
            abi,
            "a handler has Rust's own calling convention; leave `extern` out",
        );
        repair = Repair::Qualifiers;
    }
    if let Some(variadic) = &sig.variadic {
        mistakes.at(
            variadic,
            "a handler has a fixed number of arguments; leave `...` out",
        );
    }
    if let Some(receiver) = &handler.receiver {
        mistakes.at(
            receiver,
            "methods with `self` are not handlers; move the body into a function without `self`",
        );
    }
    if let ReturnType::Type(_, ty) = &sig.output
        && let Type::Never(never) = &**ty
    {
        mistakes.at(
            never,
            "a handler returns a response, and `!` is none; write `std::convert::Infallible`",
        );
        repair = Repair::Stub;
    }
    for param in &sig.generics.params {
        if let GenericParam::Lifetime(lifetime) = param {
            mistakes.at(
                lifetime,
                "a handler may outlive its request, so it borrows nothing; leave the lifetime out and take owned values",
            );
        }
    }
    if handler.arguments.len() > MOST_ARGUMENTS {
        mistakes.at(
            handler.arguments[MOST_ARGUMENTS].pat.to_token_stream(),
            format!(
                "a handler takes at most {MOST_ARGUMENTS} arguments; put some of them into a tuple, \
                 such as `(a, b): (A, B)`"
            ),
        );
        repair = Repair::Stub;
    }
    for argument in &handler.arguments {
        if self::argument(argument, mistakes) {
            repair = Repair::Stub;
        }
    }
    let last = handler.last().and_then(|last| body_extractor(&last.ty));
    for argument in handler.head() {
        let Some(name) = body_extractor(&argument.ty) else {
            continue;
        };
        let message = match &last {
            Some(last) => format!(
                "`{name}` reads the body, and so does `{last}`; a body is read once, so keep one of them as the last argument"
            ),
            None => format!(
                "`{name}` reads the body, so it has to be the last argument; move it to the end"
            ),
        };
        mistakes.at(&argument.ty, message);
        repair = Repair::Stub;
    }
    repair
}

/// Whether the argument's mistake keeps the function from being a handler.
fn argument(argument: &Argument, mistakes: &mut Mistakes) -> bool {
    struct ImplTrait(Option<TypeImplTrait>);
    impl Visit<'_> for ImplTrait {
        fn visit_type_impl_trait(&mut self, ty: &TypeImplTrait) {
            self.0.get_or_insert_with(|| ty.clone());
            visit::visit_type_impl_trait(self, ty);
        }
    }
    if let Some(cfg) = argument
        .attrs
        .iter()
        .find(|attr| attr.path().is_ident("cfg"))
    {
        mistakes.at(
            cfg,
            "an argument cannot be conditional; put `#[cfg(…)]` on two versions of the handler",
        );
    }
    if borrows(&argument.ty, mistakes) {
        return true;
    }
    let mut found = ImplTrait(None);
    found.visit_type(&argument.ty);
    if let Some(ty) = found.0 {
        let bounds = code(&ty.bounds);
        mistakes.at(
            ty,
            format!(
                "a router cannot tell which type this is; make it a type parameter `R: {bounds}`, \
                 and name it in the route"
            ),
        );
        return true;
    }
    false
}

/// Whether the type borrows from the request, in itself or inside, as `Path<&str>` does.
fn borrows(ty: &Type, mistakes: &mut Mistakes) -> bool {
    #[derive(Default)]
    struct Borrowed {
        reference: Option<TypeReference>,
        elided: Option<Lifetime>,
        is_declared: bool,
    }
    impl Visit<'_> for Borrowed {
        fn visit_type_reference(&mut self, ty: &TypeReference) {
            match &ty.lifetime {
                Some(lifetime) if lifetime.ident != "_" => visit::visit_type_reference(self, ty),
                _ => {
                    self.reference.get_or_insert_with(|| ty.clone());
                }
            }
        }
        fn visit_lifetime(&mut self, lifetime: &Lifetime) {
            if lifetime.ident == "_" {
                self.elided.get_or_insert_with(|| lifetime.clone());
            } else if lifetime.ident != "static" {
                // It has been complained about where it is declared.
                self.is_declared = true;
            }
        }
        // The arguments of a function are its own: `Arc<dyn Fn(&str)>`.
        fn visit_type_fn_ptr(&mut self, _: &TypeFnPtr) {}
        fn visit_parenthesized_generic_arguments(&mut self, _: &ParenthesizedGenericArguments) {}
    }
    const HOW: &str = "a handler cannot borrow its arguments";
    let mut borrowed = Borrowed::default();
    match ty {
        Type::Reference(reference) if is_static(reference) => {
            borrowed.reference = Some(reference.clone());
        }
        ty => borrowed.visit_type(ty),
    }
    if let Some(reference) = borrowed.reference {
        let inner = code(&reference.elem);
        let owned = match inner.as_str() {
            "str" => "write `String`".to_owned(),
            "[u8]" => "write `Bytes`".to_owned(),
            _ => format!(
                "take `{inner}` by value, or through an extractor such as `State` or `Json`"
            ),
        };
        mistakes.at(reference, format!("{HOW}; {owned}"));
        return true;
    }
    if let Some(lifetime) = borrowed.elided {
        mistakes.at(
            lifetime,
            format!("{HOW}; write `'static`, or an owned type"),
        );
        return true;
    }
    borrowed.is_declared
}

fn is_static(reference: &TypeReference) -> bool {
    let lifetime = reference.lifetime.as_ref();
    lifetime.is_some_and(|lifetime| lifetime.ident == "static")
}

/// The name of a function that `#[async_trait]` has rewritten.
fn of_async_trait(handler: &Handler) -> Option<Span> {
    let mut lifetimes = handler.sig.generics.lifetimes();
    let is_rewritten = lifetimes.any(|param| param.lifetime.ident == "async_trait");
    is_rewritten.then(|| handler.sig.ident.span())
}

/// An attribute that runs the function itself, such as `#[tokio::main]`.
pub(crate) fn entry_point(handler: &mut Handler, mistakes: &mut Mistakes) {
    handler.attrs.retain(|attr| {
        let path = attr.path();
        let last = path.segments.last().filter(|_| path.segments.len() > 1);
        let runs = last.is_some_and(|last| last.ident == "main" || last.ident == "test");
        if runs {
            let path = code(path);
            mistakes.at(
                attr.path(),
                format!("`#[{path}]` runs the function by itself, and a router runs a handler; leave one of the attributes out"),
            );
        }
        !runs
    });
}

/// A second `#[idempotent]` on the same function.
pub(crate) fn doubled(handler: &mut Handler, mistakes: &mut Mistakes) {
    const TWICE: &str = "`#[idempotent]` is given twice; put all arguments into one";
    handler.attrs.retain(|attr| {
        let last = attr.path().segments.last();
        let doubled = last.is_some_and(|segment| segment.ident == "idempotent");
        if doubled {
            mistakes.at(attr.path(), TWICE);
        }
        !doubled
    });
    // Under another name it has not been seen, but what it makes of the function is.
    let is_expanded = handler.last().is_some_and(|last| match &last.ty {
        Type::Path(path) => path
            .path
            .segments
            .iter()
            .any(|part| part.ident == "__private"),
        _ => false,
    });
    if is_expanded {
        mistakes.at_span(attribute(handler), TWICE);
    }
}

/// The place of the attribute itself, as a token that the user wrote.
fn attribute(handler: &Handler) -> Span {
    Span::call_site().resolved_at(handler.sig.fn_token.span)
}

/// Checks what the arguments say about the handler.
pub(crate) fn plan(args: &Args, handler: &Handler, mistakes: &mut Mistakes) -> Plan {
    let mut parts = Vec::new();
    if let Some(value) = &args.scope {
        parts = scope::parts(value, handler, mistakes);
    } else if !args.scope_is_meant {
        mistakes.at_span(
            attribute(handler),
            format!(
                "`scope` is missing: whose key is it? write `scope = …` with {}",
                scope::CHOICES
            ),
        );
    }
    let scope_names: Vec<Ident> = parts.iter().flat_map(Part::names).collect();
    let runtime_names = runtime_names(args, handler, mistakes);

    let named_last = |names: &[Ident]| {
        let last = handler.last()?;
        names.iter().find(|name| last.binds(name)).cloned()
    };
    let scope_last = named_last(&scope_names);
    let runtime_last = named_last(&runtime_names);
    if let Some(body) = handler.last().and_then(|last| body_extractor(&last.ty)) {
        if let Some(name) = &scope_last {
            mistakes.at(
                name,
                format!(
                    "`{name}` comes from the body, which is extracted only once the key is known to be new; \
                     make the scope of an argument before `{body}`, such as the user or the path, or of `token` or `header(\"…\")`"
                ),
            );
        }
        if let Some(name) = &runtime_last {
            mistakes.at(
                name,
                format!(
                    "`{name}` comes from the body, which is extracted only once the key is known to be new; \
                     take the runtime from an argument before `{body}`"
                ),
            );
        }
    }
    Plan {
        parts,
        last_named: scope_last.or(runtime_last),
        runtime_names,
    }
}

fn runtime_names(args: &Args, handler: &Handler, mistakes: &mut Mistakes) -> Vec<Ident> {
    let Some(runtime) = &args.runtime else {
        return Vec::new();
    };
    let problem = new_each_time(runtime)
        .or_else(|| Names::of(handler).unknown("runtime", runtime, false))
        .or_else(|| not_at_once("runtime", runtime));
    if let Some(problem) = problem {
        mistakes.push(problem);
    }
    names::variables(runtime)
}

/// The mistake of a runtime that is made for each request, and so remembers none before it.
fn new_each_time(runtime: &Expr) -> Option<syn::Error> {
    let made = match runtime {
        Expr::Call(call) => &*call.func,
        Expr::MethodCall(call) => return new_each_time(&call.receiver),
        Expr::Reference(reference) => return new_each_time(&reference.expr),
        _ => return None,
    };
    let Expr::Path(path) = made else { return None };
    let mut names = path.path.segments.iter().rev().map(|part| &part.ident);
    let (made, of) = (names.next()?, names.next()?);
    (of == "Idempotency" && (made == "in_memory" || made == "builder")).then(|| {
        let message = "this is a new `Idempotency` for each request, which remembers none before \
                       it; keep one in the service's state or in a static, and name that";
        syn::Error::new_spanned(path, message)
    })
}

//! Every rule about the handler, and those between it and the arguments, in one place.

use proc_macro2::Ident;
use quote::ToTokens;
use syn::visit::{self, Visit};
use syn::{Attribute, GenericArgument, GenericParam, PathArguments, Safety, Type, TypeImplTrait};

use crate::args::Args;
use crate::fallback::Repair;
use crate::handler::{Argument, Handler};
use crate::mistakes::Mistakes;
use crate::names;
use crate::scope::{self, Part};

/// What axum's own `Handler` takes.
const MOST_ARGUMENTS: usize = 16;

/// What the expansion needs to know beyond the arguments themselves.
pub(crate) struct Plan {
    pub(crate) parts: Vec<Part>,
    /// The scope or the runtime names a binding of the last argument, so that it reads no body.
    pub(crate) names_last: bool,
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
    if let Type::Reference(reference) = &argument.ty {
        let inner = reference.elem.to_token_stream().to_string();
        let owned = match inner.as_str() {
            "str" => "write `String`".to_owned(),
            _ => format!(
                "take `{inner}` by value, or through an extractor such as `State` or `Json`"
            ),
        };
        mistakes.at(
            &argument.ty,
            format!("a handler cannot borrow its arguments; {owned}"),
        );
        return true;
    }
    let mut found = ImplTrait(None);
    found.visit_type(&argument.ty);
    if let Some(ty) = found.0 {
        let bounds = ty.bounds.to_token_stream();
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

/// A second `#[idempotent]` on the same function.
pub(crate) fn doubled(attrs: &mut Vec<Attribute>, mistakes: &mut Mistakes) {
    attrs.retain(|attr| {
        let last = attr.path().segments.last();
        let doubled = last.is_some_and(|segment| segment.ident == "idempotent");
        if doubled {
            mistakes.at(
                attr.path(),
                "`#[idempotent]` is given twice; put all arguments into one",
            );
        }
        !doubled
    });
}

/// Checks what the arguments say about the handler.
pub(crate) fn plan(args: &Args, handler: &Handler, mistakes: &mut Mistakes) -> Plan {
    let mut parts = Vec::new();
    if let Some(value) = &args.scope {
        parts = scope::parts(value, handler, mistakes);
    } else if !args.scope_is_meant {
        mistakes.at_span(
            proc_macro2::Span::call_site(),
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
        names_last: scope_last.is_some() || runtime_last.is_some(),
        runtime_names,
    }
}

fn runtime_names(args: &Args, handler: &Handler, mistakes: &mut Mistakes) -> Vec<Ident> {
    let Some(runtime) = &args.runtime else {
        return Vec::new();
    };
    let problem = scope::Names::of(handler)
        .unknown("runtime", runtime)
        .or_else(|| scope::not_at_once("runtime", runtime));
    if let Some(problem) = problem {
        mistakes.push(problem);
    }
    names::variables(runtime.to_token_stream())
}

/// The name of the type, where it is one that is known to read the body.
pub(crate) fn body_extractor(ty: &Type) -> Option<String> {
    const READ_THE_BODY: [&str; 12] = [
        "Json",
        "Form",
        "Bytes",
        "BytesMut",
        "String",
        "Multipart",
        "Request",
        "RawForm",
        "Body",
        "Protobuf",
        "JsonLines",
        "Vec",
    ];
    let Type::Path(path) = ty else { return None };
    let segment = path.path.segments.last()?;
    let name = segment.ident.to_string();
    if matches!(name.as_str(), "Option" | "Result")
        && let PathArguments::AngleBracketed(arguments) = &segment.arguments
        && let Some(GenericArgument::Type(inner)) = arguments.args.first()
    {
        return body_extractor(inner);
    }
    READ_THE_BODY.contains(&name.as_str()).then_some(name)
}

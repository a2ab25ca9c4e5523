//! Checks the attribute's arguments against the handler, and plans the expansion.

use proc_macro2::Ident;
use quote::ToTokens as _;
use syn::Expr;

use crate::check::key::{self, Key};
use crate::check::scope::{self, Part};
use crate::check::scope_names::{Names, not_at_once};
use crate::check::unknown;
use crate::messages::mistakes::Mistakes;
use crate::parse::attribute_args::AttributeArgs;
use crate::parse::body_extractors::{body_extractor, own_type};
use crate::parse::handler::Handler;
use crate::parse::names;

/// The facts that the expansion needs in addition to the attribute's arguments and the handler.
pub(crate) struct Plan {
    /// The parts of the scope.
    pub(crate) parts: Vec<Part>,
    pub(crate) key: Option<Key>,
    /// A variable of the last parameter that the scope, the key or the runtime uses. That parameter is then
    /// extracted before the claim, so it must not read the body.
    pub(crate) last_named: Option<Ident>,
    /// The variables that the runtime's expression uses.
    pub(crate) runtime_names: Vec<Ident>,
}

impl Plan {
    /// Returns the variables that the attribute's arguments use.
    pub(crate) fn names(&self) -> impl Iterator<Item = Ident> {
        let parts = self.parts.iter().flat_map(Part::names);
        let key = self.key.iter().flat_map(Key::names);
        parts.chain(key).chain(self.runtime_names.iter().cloned())
    }

    /// Checks every rule that needs both the arguments and the handler.
    pub(crate) fn of(args: &AttributeArgs, handler: &Handler, mistakes: &mut Mistakes) -> Self {
        unknown::check(args, mistakes);
        let known = Names::of(handler, args);
        let mut parts = Vec::new();
        if let Some(value) = &args.scope {
            parts = scope::parts(value, &known, mistakes);
        } else if !args.scope_is_meant {
            mistakes.at_span(
                handler.attribute_span(),
                format!(
                    "`scope` is missing, so two callers with equal keys would share a record; write `scope = …` with {}",
                    scope::CHOICES
                ),
            );
        }
        let key = args.key.as_ref();
        let key = key.and_then(|value| key::key(value, &known, mistakes));
        transaction(args, handler, mistakes);
        let scope_names: Vec<Ident> = parts.iter().flat_map(Part::names).collect();
        let key_names: Vec<Ident> = key.iter().flat_map(Key::names).collect();
        let runtime_names = runtime_names(args, &known, mistakes);

        let named_last = |names: &[Ident]| {
            let last = handler.last()?;
            // The compiler reports a name that two parameters bind.
            let is_head = |name: &Ident| handler.head().iter().any(|head| head.binds(name));
            let mut named = names
                .iter()
                .filter(|name| last.binds(name) && !is_head(name));
            named.next().cloned()
        };
        let scope_last = named_last(&scope_names);
        let key_last = named_last(&key_names);
        let runtime_last = named_last(&runtime_names);
        if let Some(body) = handler.last().and_then(|last| body_extractor(&last.ty)) {
            let own_type = own_type(&body);
            let how = [
                (
                    &scope_last,
                    format!(
                        "use an argument before `{body}`, such as the user or the path, or use `token` or `header(\"…\")`"
                    ),
                ),
                (
                    &key_last,
                    format!(
                        "use an argument before `{body}`, such as the path or an extension, or use `header(\"…\")`"
                    ),
                ),
                (
                    &runtime_last,
                    format!("take the runtime from an argument before `{body}`"),
                ),
            ];
            for (name, how) in how {
                if let Some(name) = name {
                    mistakes.at(
                        name,
                        format!(
                            "`{name}` comes from the body, which is extracted only after the key is known to be new; \
                             {how}{own_type}"
                        ),
                    );
                }
            }
        }
        Self {
            parts,
            key,
            last_named: scope_last.or(key_last).or(runtime_last),
            runtime_names,
        }
    }
}

/// A handler without an `Attempt` cannot record its response in a transaction.
fn transaction(args: &AttributeArgs, handler: &Handler, mistakes: &mut Mistakes) {
    let Some(word) = &args.transactional else {
        return;
    };
    // An `Attempt` of any module counts, because the user may import the type through a module of their own.
    let is_attempt = |name: &String| name == "Attempt";
    let mut types = handler.parameters.iter().map(|it| it.ty.to_token_stream());
    if !types.any(|ty| names::mentions(ty).iter().any(is_attempt)) {
        mistakes.at(
            word,
            "`transactional` needs an argument `attempt: Attempt`; add it, and end the handler with \
             `attempt.commit(tx, response).await`",
        );
    }
}

fn runtime_names(args: &AttributeArgs, names: &Names, mistakes: &mut Mistakes) -> Vec<Ident> {
    let Some(runtime) = &args.runtime else {
        return Vec::new();
    };
    let unknown = || names.unknown("runtime", runtime, names.any_bound(runtime));
    let problem = new_each_time(runtime)
        .or_else(|| names.unusable("runtime", runtime))
        .or_else(unknown)
        .or_else(|| not_at_once("runtime", runtime));
    if let Some(problem) = problem {
        mistakes.push(problem);
    }
    names::variables(runtime)
}

/// Returns the mistake of a runtime that is created for each request, without the records of earlier
/// requests.
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
        let message = "this creates a new `Idempotency` for each request, without the records of earlier \
                       requests; keep one in the service's state or in a `static`, and use that one";
        syn::Error::new_spanned(path, message)
    })
}

//! Checks the names in the expressions of `scope`, `key` and `runtime`, and how the expressions use them.

use proc_macro2::Ident;
use syn::ext::IdentExt as _;
use syn::spanned::Spanned as _;
use syn::visit::{self, Visit};
use syn::{Expr, Lit, LitStr, PatMacro, Type};

use crate::check::header_name::header_name;
use crate::messages::words::{all_of, code, nearest};
use crate::parse::attribute_args::AttributeArgs;
use crate::parse::body_extractors::body_extractor;
use crate::parse::handler::Handler;
use crate::parse::names;
use crate::parse::patterns::{is_same, variables_of};
use crate::parse::request_types::{is_attempt, is_header_map, is_key};

/// The names that an expression over the handler's parameters may use.
pub(crate) struct Names {
    head: Vec<Ident>,
    last: Vec<Ident>,
    /// Names in capitals in the patterns. They may be constants or variables.
    capitals: Vec<Ident>,
    /// The last parameter reads the body, so a scope cannot use its names.
    last_is_body: bool,
    /// The variables of the type `IdempotencyKey`.
    keys: Vec<Ident>,
    /// The variables of the type `Attempt`.
    attempts: Vec<Ident>,
    /// The variables of the type `HeaderMap`.
    header_maps: Vec<Ident>,
    /// Whether the endpoint has a `key = …`, so that its `keys` have the value of that argument.
    has_key: bool,
    /// The header in `key = header("…")`.
    key_header: Option<String>,
    /// The macros in the patterns.
    macros: Vec<PatMacro>,
}

/// What a scope may use in the place of a key.
const OF_THE_CALLER: &str = "use `token`, `header(\"x-workspace-id\")`, or an argument that identifies the caller, \
     such as `user.id`";

impl Names {
    pub(crate) fn of(handler: &Handler, args: &AttributeArgs) -> Self {
        let variables = |is_wanted: &dyn Fn(&Type) -> bool| {
            let each = handler.parameters.iter();
            each.flat_map(|it| variables_of(&it.pat, &it.ty, is_wanted))
                .collect()
        };
        let head = handler
            .head()
            .iter()
            .flat_map(|parameter| &parameter.bindings);
        let last = handler.last().map(|parameter| parameter.bindings.clone());
        Self {
            head: head.cloned().collect(),
            last: last.unwrap_or_default(),
            capitals: handler
                .parameters
                .iter()
                .flat_map(|parameter| parameter.capitals.clone())
                .collect(),
            last_is_body: handler
                .last()
                .is_some_and(|last| body_extractor(&last.ty).is_some()),
            keys: variables(&is_key),
            attempts: variables(&|ty| is_attempt(ty, args.facade.as_ref())),
            header_maps: variables(&is_header_map),
            has_key: args.key.is_some(),
            key_header: args.key.as_ref().and_then(header_of),
            macros: (handler.parameters.iter())
                .flat_map(|parameter| macros_in(&parameter.pat))
                .collect(),
        }
    }

    fn all(&self) -> impl Iterator<Item = String> + '_ {
        let names = self.head.iter().chain(&self.last).chain(&self.capitals);
        names.map(|name| name.unraw().to_string())
    }

    /// Returns whether a parameter binds the name. `user` and `r#user` are one name.
    pub(crate) fn bound(&self, name: &str) -> bool {
        let name = name.strip_prefix("r#").unwrap_or(name);
        self.all().any(|bound| bound == name)
    }

    /// Returns whether the expression uses a variable of the handler.
    pub(crate) fn any_bound(&self, value: &Expr) -> bool {
        let variables = names::variables(value);
        variables.iter().any(|name| self.bound(&name.to_string()))
    }

    /// Returns whether the expression means the same wherever the user writes it. Two names of the same text are two
    /// variables, if a macro writes one of them.
    pub(crate) fn is_unambiguous(&self, value: &Expr) -> bool {
        let is_single = |name: &Ident| {
            let name = name.unraw().to_string();
            self.all().filter(|bound| *bound == name).count() == 1
        };
        let variables = names::variables(value);
        variables.iter().any(is_single)
            && variables
                .iter()
                .all(|name| is_single(name) || !self.bound(&name.to_string()))
    }

    /// Returns the mistake of an expression that uses a variable with another value than the user expects: the key of
    /// the request, the attempt, or a variable that a macro binds.
    pub(crate) fn unusable(&self, argument: &str, value: &Expr) -> Option<syn::Error> {
        let key = || self.key_inside(argument, value);
        let of_a_macro = || self.of_a_macro(argument, value);
        let attempt = self.attempt_inside(argument, value);
        attempt.or_else(key).or_else(of_a_macro)
    }

    /// Returns the mistake of an expression that uses the key of the request.
    fn key_inside(&self, argument: &str, value: &Expr) -> Option<syn::Error> {
        let is_key = |name: &Ident| self.keys.iter().any(|key| is_same(key, name));
        let name = names::variables(value).into_iter().find(is_key)?;
        let message = match argument {
            "key" => format!(
                "`{name}` is the key that this argument chooses; use another argument of the handler, or `header(\"…\")`"
            ),
            _ if self.has_key => format!(
                "`{name}` is the key, which is not known yet; a `{argument}` uses other arguments of the handler"
            ),
            "scope" => format!("`{name}` names the operation, not the caller; {OF_THE_CALLER}"),
            _ => return None,
        };
        Some(syn::Error::new_spanned(name, message))
    }

    /// Returns the name of the header in `headers["x-tenant"]` and in `headers.get("x-tenant")`.
    pub(crate) fn header_in_a_map<'a>(&self, value: &'a Expr) -> Option<&'a LitStr> {
        let (map, name) = match value {
            Expr::Reference(reference) => return self.header_in_a_map(&reference.expr),
            Expr::Index(index) => (&index.expr, &*index.index),
            Expr::MethodCall(call) if call.method == "get" => (&call.receiver, call.args.first()?),
            _ => return None,
        };
        let map = root(map)?;
        let is_map = self.header_maps.iter().any(|it| is_same(it, map));
        match name {
            Expr::Lit(literal) if is_map => match &literal.lit {
                Lit::Str(name) => Some(name),
                _ => None,
            },
            _ => None,
        }
    }

    /// Returns the mistake of a header that contains the key of the request. Names of headers ignore case.
    pub(crate) fn header_of_the_key(&self, name: &LitStr) -> Option<syn::Error> {
        let header = name.value().to_lowercase();
        let is_key = header == "idempotency-key" || self.key_header.as_ref() == Some(&header);
        is_key.then(|| {
            let written = name.value();
            let message = format!(
                "`header(\"{written}\")` names the operation, not the caller; {OF_THE_CALLER}"
            );
            syn::Error::new_spanned(name, message)
        })
    }

    /// Returns the mistake of an expression that uses the attempt. Before the claim, the number of every attempt is 1.
    fn attempt_inside(&self, argument: &str, value: &Expr) -> Option<syn::Error> {
        let is_attempt = |name: &Ident| self.attempts.iter().any(|it| is_same(it, name));
        let name = names::variables(value).into_iter().find(is_attempt)?;
        let how = match argument {
            "scope" => OF_THE_CALLER,
            "key" => "use another argument of the handler, or `header(\"…\")`",
            _ => "take the runtime from another argument",
        };
        let message = format!(
            "`{name}` is the attempt, which begins only after `{argument}` is evaluated; {how}"
        );
        Some(syn::Error::new_spanned(name, message))
    }

    /// Returns the mistake of an expression that uses a variable of a macro in a pattern. The attribute does not see which
    /// variables the macro binds.
    fn of_a_macro(&self, argument: &str, value: &Expr) -> Option<syn::Error> {
        let names = names::variables(value).into_iter();
        let mut unbound = names.filter(|name| !self.bound(&name.to_string()));
        unbound.find_map(|name| {
            let mut macros = self.macros.iter().map(|it| &it.mac);
            let unraw = name.unraw().to_string();
            let of = macros.find(|it| names::mentions(it.tokens.clone()).contains(&unraw))?;
            let written = code(&of.path);
            let message = format!(
                "`{name}` is an argument of the macro `{written}!`, and `{argument}` cannot use the variables of a macro; \
                 write the pattern without the macro"
            );
            Some(syn::Error::new_spanned(name, message))
        })
    }

    /// Returns the mistake of an expression that uses `token`, `global` or `header` as a variable.
    pub(crate) fn built_in_inside(&self, value: &Expr) -> Option<syn::Error> {
        let is_one = |name: &String| matches!(name.as_str(), "token" | "global" | "header");
        let name = names::values(value).into_iter().find(|name| {
            let name = name.to_string();
            is_one(&name) && !self.bound(&name)
        })?;
        let written = match name.to_string().as_str() {
            "header" => "header(\"x-workspace-id\")".to_owned(),
            other => other.to_owned(),
        };
        let message = format!(
            "`{name}` is not a variable, so an expression cannot use it; write `scope = {written}`, \
             or a tuple such as `({written}, user.id)`"
        );
        Some(syn::Error::new_spanned(name, message))
    }

    /// Returns the mistake of an expression that begins with a name that no parameter binds.
    ///
    /// A name in lower case may be a static. With `only_slips`, another name already distinguishes the
    /// callers. Then only a name that is similar to a known name is a mistake.
    pub(crate) fn unknown(
        &self,
        argument: &str,
        value: &Expr,
        only_slips: bool,
    ) -> Option<syn::Error> {
        // If nothing distinguishes the callers, any name may be misspelt.
        let first = || names::values(value).into_iter().next();
        let root = root(value).cloned();
        let root = root.or_else(|| first().filter(|_| !only_slips))?;
        let name = root.to_string();
        if self.bound(&name) {
            return None;
        }
        if name == "self" {
            return Some(syn::Error::new_spanned(
                root,
                "a handler has no `self`; use one of its arguments",
            ));
        }
        // The name is a constant, or the type at the start of a longer expression.
        let alone = matches!(value, Expr::Path(_)) && name.contains(char::is_lowercase);
        if !alone && name.starts_with(char::is_uppercase) {
            return None;
        }
        let last = self.last.iter().filter(|_| !self.last_is_body);
        let bound: Vec<String> = self
            .head
            .iter()
            .chain(last)
            .map(ToString::to_string)
            .collect();
        let bound = bound.iter().map(String::as_str);
        let choices = match argument {
            "scope" => {
                "a scope is `token`, `header(\"…\")`, `global`, or an expression that uses the handler's arguments"
            }
            "key" => "a key is `header(\"…\")`, or an expression that uses the handler's arguments",
            _ => "a runtime is an expression that uses the handler's arguments",
        };
        let built_in: &[&str] = match argument {
            "key" => &["header"],
            _ => &["token", "global", "header"],
        };
        let built_in = built_in.iter().copied();
        let other_word = match name.as_str() {
            "authorization" | "bearer" | "jwt" if argument == "scope" => Some("token"),
            _ => None,
        };
        let hint = match other_word.or_else(|| nearest(&name, bound.clone().chain(built_in))) {
            Some(meant) => format!("did you mean `{meant}`? "),
            None if only_slips => return None,
            None => String::new(),
        };
        let arguments = match bound.len() {
            0 => String::new(),
            _ => format!(": {}", all_of(bound)),
        };
        Some(syn::Error::new_spanned(
            root,
            format!("no argument is named `{name}`; {hint}{choices}{arguments}"),
        ))
    }
}

/// Returns the name in `header("…")`, in lower case.
fn header_of(value: &Expr) -> Option<String> {
    let call = match value {
        Expr::Paren(inner) => return header_of(&inner.expr),
        Expr::Call(call) => call,
        _ => return None,
    };
    let is_header = matches!(&*call.func, Expr::Path(path) if path.path.is_ident("header"));
    // The check of `key` reports an invalid name.
    let name = header_name(call, "").ok().filter(|_| is_header)?;
    Some(name.value().to_lowercase())
}

fn macros_in(pat: &syn::Pat) -> Vec<PatMacro> {
    struct Macros(Vec<PatMacro>);
    impl Visit<'_> for Macros {
        fn visit_pat(&mut self, pat: &syn::Pat) {
            match pat {
                syn::Pat::Macro(found) => self.0.push(found.clone()),
                pat => visit::visit_pat(self, pat),
            }
        }
    }
    let mut macros = Macros(Vec::new());
    macros.visit_pat(pat);
    macros.0
}

/// Returns the first variable of a chain such as `&user.account().id`.
pub(crate) fn root(value: &Expr) -> Option<&Ident> {
    match value {
        Expr::Path(path) if path.qself.is_none() => path.path.get_ident(),
        Expr::Field(field) => root(&field.base),
        Expr::MethodCall(call) => root(&call.receiver),
        Expr::Reference(reference) => root(&reference.expr),
        Expr::Unary(unary) => root(&unary.expr),
        Expr::Paren(paren) => root(&paren.expr),
        Expr::Group(group) => root(&group.expr),
        Expr::Index(index) => root(&index.expr),
        Expr::Try(tried) => root(&tried.expr),
        Expr::Await(awaited) => root(&awaited.base),
        _ => None,
    }
}

/// Returns the mistake of an expression that contains `.await`, `?` or `return`.
pub(crate) fn not_at_once(argument: &str, value: &Expr) -> Option<syn::Error> {
    struct Finder<'a>(&'a str, Option<syn::Error>);
    impl Visit<'_> for Finder<'_> {
        fn visit_expr_await(&mut self, value: &syn::ExprAwait) {
            self.1 = Some(syn::Error::new(
                value.await_token.span,
                format!(
                    "`{}` cannot use `.await`; move the `.await` into an extractor, and use its result",
                    self.0
                ),
            ));
        }
        fn visit_expr_try(&mut self, value: &syn::ExprTry) {
            self.1 = Some(syn::Error::new(
                value.question_token.span(),
                format!(
                    "`{}` cannot use `?`; move the check into an extractor that rejects the request, and use its result",
                    self.0
                ),
            ));
        }
        fn visit_expr_return(&mut self, value: &syn::ExprReturn) {
            self.1 = Some(syn::Error::new(
                value.return_token.span,
                format!(
                    "`{}` cannot use `return`; write `if … {{ … }} else {{ … }}` with a value in each branch",
                    self.0
                ),
            ));
        }
        // `.await`, `?` and `return` inside a closure or an `async` block leave only that block.
        fn visit_expr_closure(&mut self, _: &syn::ExprClosure) {}
        fn visit_expr_async(&mut self, _: &syn::ExprAsync) {}
        fn visit_expr(&mut self, value: &Expr) {
            if self.1.is_none() {
                visit::visit_expr(self, value);
            }
        }
    }
    let mut finder = Finder(argument, None);
    finder.visit_expr(value);
    finder.1
}

//! Checks the names in the expressions of `scope`, `key` and `runtime`, and how the expressions use them.

use proc_macro2::Ident;
use syn::Expr;
use syn::ext::IdentExt as _;
use syn::spanned::Spanned as _;
use syn::visit::{self, Visit};

use crate::messages::words::{all_of, nearest};
use crate::parse::body_extractors::body_extractor;
use crate::parse::handler::Handler;
use crate::parse::key_type::key_type;
use crate::parse::names;
use crate::parse::patterns::is_same;

/// The names that an expression over the handler's parameters may use.
pub(crate) struct Names {
    head: Vec<Ident>,
    last: Vec<Ident>,
    /// Names in capitals in the patterns. They may be constants or variables.
    capitals: Vec<Ident>,
    /// The last parameter reads the body, so a scope cannot use its names.
    last_is_body: bool,
    /// The names of the parameters that are the key of the endpoint.
    keys: Vec<Ident>,
}

impl Names {
    /// With `has_key`, the endpoint has a `key = …`, and its parameters of the type `IdempotencyKey` are that key.
    pub(crate) fn of(handler: &Handler, has_key: bool) -> Self {
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
            keys: handler
                .parameters
                .iter()
                .filter(|parameter| has_key && key_type(&parameter.ty).is_some())
                .flat_map(|parameter| parameter.bindings.clone())
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

    /// Returns the mistake of an expression that uses the key of the endpoint.
    pub(crate) fn key_inside(&self, argument: &str, value: &Expr) -> Option<syn::Error> {
        let is_key = |name: &Ident| self.keys.iter().any(|key| is_same(key, name));
        let name = names::variables(value).into_iter().find(is_key)?;
        let message = match argument {
            "key" => format!(
                "`{name}` is the key that this argument chooses; use another argument of the handler, or `header(\"…\")`"
            ),
            _ => format!(
                "`{name}` is the key, which is not known yet; a `{argument}` uses other arguments of the handler"
            ),
        };
        Some(syn::Error::new_spanned(name, message))
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

//! Which names the expressions of `scope` and `runtime` may use, and what they may do with them.

use proc_macro2::Ident;
use syn::Expr;
use syn::spanned::Spanned as _;
use syn::visit::{self, Visit};

use crate::messages::words::{all_of, nearest};
use crate::parse::body_extractors::body_extractor;
use crate::parse::handler::Handler;
use crate::parse::names;

/// The names that an expression over the handler's parameters may use.
pub(crate) struct Names {
    head: Vec<Ident>,
    last: Vec<Ident>,
    /// Names in capitals in the patterns. They may be constants or variables.
    capitals: Vec<Ident>,
    /// The last parameter reads the body, so a scope cannot use its names.
    last_is_body: bool,
}

impl Names {
    pub(crate) fn of(handler: &Handler) -> Self {
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
        }
    }

    fn all(&self) -> impl Iterator<Item = String> + '_ {
        self.head.iter().chain(&self.last).map(ToString::to_string)
    }

    pub(crate) fn bound(&self, name: &str) -> bool {
        self.all().any(|bound| bound == name) || self.capitals.iter().any(|bound| bound == name)
    }

    /// The mistake of an expression that computes with `token`, `global` or `header`, as if they
    /// were variables.
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
            "`{name}` stands alone, for it is no argument of the handler; write `scope = {written}`, \
             or a tuple such as `({written}, user.id)`"
        );
        Some(syn::Error::new_spanned(name, message))
    }

    /// The mistake of an expression that begins with a name that no parameter binds.
    ///
    /// A name in lower case may be a static. Where the scope differs between callers by another
    /// name, only a slip is a mistake for certain.
    pub(crate) fn unknown(
        &self,
        argument: &str,
        value: &Expr,
        only_slips: bool,
    ) -> Option<syn::Error> {
        // In a scope that differs by nothing, any name may be the slip.
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
                "a handler has no `self`; name one of its arguments",
            ));
        }
        // A constant, or the type that a longer expression begins with.
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
                "a scope is `token`, `header(\"…\")`, `global`, or made of the handler's arguments"
            }
            _ => "a runtime is made of the handler's arguments",
        };
        let built_in = ["token", "global", "header"].into_iter();
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
            _ => format!(", which bind {}", all_of(bound)),
        };
        Some(syn::Error::new_spanned(
            root,
            format!("no argument is called `{name}`; {hint}{choices}{arguments}"),
        ))
    }
}

/// The variable that a chain such as `&user.account().id` begins with.
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

/// The mistake of an expression that waits, fails or returns early: `.await`, `?` or `return`.
pub(crate) fn not_at_once(argument: &str, value: &Expr) -> Option<syn::Error> {
    struct Finder<'a>(&'a str, Option<syn::Error>);
    impl Visit<'_> for Finder<'_> {
        fn visit_expr_await(&mut self, value: &syn::ExprAwait) {
            self.1 = Some(syn::Error::new(
                value.await_token.span,
                format!(
                    "`{}` is read without waiting; let an extractor do the `.await`, and name its result",
                    self.0
                ),
            ));
        }
        fn visit_expr_try(&mut self, value: &syn::ExprTry) {
            self.1 = Some(syn::Error::new(
                value.question_token.span(),
                format!(
                    "`{}` cannot fail; let an extractor refuse the request, and name its result",
                    self.0
                ),
            ));
        }
        fn visit_expr_return(&mut self, value: &syn::ExprReturn) {
            self.1 = Some(syn::Error::new(
                value.return_token.span,
                format!(
                    "`{}` has one value and cannot return early; write `if … {{ … }} else {{ … }}` with a value in both",
                    self.0
                ),
            ));
        }
        // `.await`, `?` and `return` inside a closure or an `async` block end only that.
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

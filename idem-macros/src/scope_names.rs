//! Which names a scope may use, and what it may do with them.

use proc_macro2::Ident;
use quote::quote;
use syn::spanned::Spanned as _;
use syn::visit::{self, Visit};
use syn::{Expr, ExprCall};

use crate::body_extractors::body_extractor;
use crate::handler::Handler;
use crate::names;
use crate::words::{all_of, nearest};

/// The names that a scope may use.
pub(crate) struct Names {
    head: Vec<Ident>,
    last: Vec<Ident>,
    /// The last argument reads the body: its names are known, and of no use.
    last_is_body: bool,
}

impl Names {
    pub(crate) fn of(handler: &Handler) -> Self {
        let head = handler
            .head()
            .iter()
            .flat_map(|argument| &argument.bindings);
        let last = handler.last().map(|argument| argument.bindings.clone());
        Self {
            head: head.cloned().collect(),
            last: last.unwrap_or_default(),
            last_is_body: handler
                .last()
                .is_some_and(|last| body_extractor(&last.ty).is_some()),
        }
    }

    fn all(&self) -> impl Iterator<Item = String> + '_ {
        self.head.iter().chain(&self.last).map(ToString::to_string)
    }

    pub(crate) fn bound(&self, name: &str) -> bool {
        self.all().any(|bound| bound == name)
    }

    /// The mistake of an expression that computes with `token`, `global` or `header`, as if they
    /// were variables.
    pub(crate) fn built_in_inside(&self, value: &Expr) -> Option<syn::Error> {
        struct Finder<'a> {
            names: &'a Names,
            found: Option<Ident>,
            is_shadowed: bool,
        }
        impl Finder<'_> {
            fn look_at(&mut self, name: &Ident) {
                let is_one = matches!(name.to_string().as_str(), "token" | "global" | "header");
                if is_one && !self.names.bound(&name.to_string()) {
                    self.found.get_or_insert_with(|| name.clone());
                }
            }
        }
        impl Visit<'_> for Finder<'_> {
            fn visit_expr_path(&mut self, path: &syn::ExprPath) {
                if let Some(name) = path.path.get_ident() {
                    self.look_at(name);
                }
            }
            fn visit_expr_call(&mut self, call: &ExprCall) {
                // A function may well have such a name.
                if !matches!(&*call.func, Expr::Path(_)) {
                    self.visit_expr(&call.func);
                }
                call.args
                    .iter()
                    .for_each(|argument| self.visit_expr(argument));
            }
            fn visit_macro(&mut self, called: &syn::Macro) {
                // Others may bind names of their own.
                if called.path.is_ident("format") {
                    for name in names::variables(quote!(#called)) {
                        self.look_at(&name);
                    }
                }
            }
            fn visit_pat_ident(&mut self, _: &syn::PatIdent) {
                self.is_shadowed = true;
            }
        }
        let mut finder = Finder {
            names: self,
            found: None,
            is_shadowed: false,
        };
        finder.visit_expr(value);
        let name = finder.found.filter(|_| !finder.is_shadowed)?;
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

    /// The mistake of an expression that begins with a name that no argument has.
    pub(crate) fn unknown(&self, argument: &str, value: &Expr) -> Option<syn::Error> {
        let root = root(value)?;
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

/// A scope is read at once and cannot fail: no `.await`, no `?`.
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
        // What happens inside these is their own.
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

//! Reads the value of `scope`: whose key it is.

use proc_macro2::{Delimiter, Group, Ident, TokenStream};
use quote::{ToTokens, quote};
use syn::spanned::Spanned as _;
use syn::visit::{self, Visit};
use syn::{Expr, ExprCall, Lit, LitStr};

use crate::arguments::{Arguments, local};
use crate::check::body_extractor;
use crate::handler::Handler;
use crate::mistakes::Mistakes;
use crate::names;
use crate::words::{all_of, nearest};

/// One part of a scope.
pub(crate) enum Part {
    Global,
    Token,
    Header(LitStr),
    /// An expression over the handler's arguments.
    Value(Box<Expr>),
}

/// What the choices are, for a message.
pub(crate) const CHOICES: &str = "`token` (the `Authorization` header), `header(\"x-workspace-id\")`, \
     `global` (everybody shares keys), or an expression over the handler's arguments such as `user.id`";

/// Reads the parts of a scope, a tuple being one part after the other.
pub(crate) fn parts(value: &Expr, handler: &Handler, mistakes: &mut Mistakes) -> Vec<Part> {
    match value {
        Expr::Paren(inner) => parts(&inner.expr, handler, mistakes),
        Expr::Group(inner) => parts(&inner.expr, handler, mistakes),
        Expr::Tuple(tuple) if tuple.elems.is_empty() => {
            mistakes.at(tuple, format!("this scope is empty; write {CHOICES}"));
            Vec::new()
        }
        Expr::Tuple(tuple) => {
            let mut parts = Vec::new();
            for element in &tuple.elems {
                parts.extend(part(element, true, handler, mistakes));
            }
            parts
        }
        value => part(value, false, handler, mistakes).into_iter().collect(),
    }
}

fn part(value: &Expr, in_tuple: bool, handler: &Handler, mistakes: &mut Mistakes) -> Option<Part> {
    let names = Names::of(handler);
    match value {
        Expr::Path(path) if path.path.is_ident("token") && !names.bound("token") => {
            return Some(Part::Token);
        }
        Expr::Path(path) if path.path.is_ident("global") && !names.bound("global") => {
            return Some(Part::Global);
        }
        Expr::Path(path) if path.path.is_ident("header") && !names.bound("header") => {
            mistakes.at(
                value,
                "`header` needs a name; write `header(\"x-workspace-id\")`",
            );
            return None;
        }
        Expr::Call(call) => {
            if let Some(result) = built_in_call(call, &names) {
                return mistakes.take(result);
            }
        }
        Expr::Lit(literal) => {
            if let Some(problem) = literal_problem(&literal.lit, in_tuple, &names) {
                mistakes.at(value, problem);
                return None;
            }
        }
        Expr::Tuple(_) if in_tuple => {
            let message =
                "all parts of a scope stand in one tuple; leave the inner parentheses out";
            mistakes.at(value, message);
            return None;
        }
        _ => {}
    }
    let problem = names
        .built_in_inside(value)
        .or_else(|| names.unknown("scope", value))
        .or_else(|| not_at_once("scope", value));
    if let Some(problem) = problem {
        mistakes.push(problem);
        return None;
    }
    Some(Part::Value(Box::new(value.clone())))
}

fn built_in_call(call: &ExprCall, names: &Names) -> Option<syn::Result<Part>> {
    let Expr::Path(path) = &*call.func else {
        return None;
    };
    let name = path.path.get_ident()?.to_string();
    if names.bound(&name) {
        return None;
    }
    match name.as_str() {
        "header" => Some(header(call)),
        "token" | "global" => Some(Err(syn::Error::new_spanned(
            call,
            format!("`{name}` takes nothing in parentheses; write `{name}`"),
        ))),
        _ => None,
    }
}

fn header(call: &ExprCall) -> syn::Result<Part> {
    const HOW: &str =
        "`header` takes one header name in quotes; write `header(\"x-workspace-id\")`";
    let (1, Some(Expr::Lit(literal))) = (call.args.len(), call.args.first()) else {
        return Err(syn::Error::new_spanned(call, HOW));
    };
    let Lit::Str(name) = &literal.lit else {
        return Err(syn::Error::new_spanned(literal, HOW));
    };
    let value = name.value();
    let is_token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    if value.is_empty() {
        return Err(syn::Error::new_spanned(name, HOW));
    }
    if !value.bytes().all(is_token) {
        return Err(syn::Error::new_spanned(
            name,
            format!(
                "`{value}` cannot be the name of a header; use letters, digits and `-`, such as `\"x-workspace-id\"`"
            ),
        ));
    }
    Ok(Part::Header(name.clone()))
}

/// A literal is the same for every caller, and a name in quotes was meant without them.
fn literal_problem(literal: &Lit, in_tuple: bool, names: &Names) -> Option<String> {
    if let Lit::Str(text) = literal {
        let text = text.value();
        let meant = match text.to_lowercase().as_str() {
            "authorization" => Some("token"),
            "token" | "global" => Some(text.as_str()),
            _ => {
                let value = syn::parse_str(&text).ok();
                let root = value.as_ref().and_then(root).map(ToString::to_string);
                root.is_some_and(|root| names.bound(&root))
                    .then_some(text.as_str())
            }
        };
        if let Some(meant) = meant {
            return Some(format!("a scope stands without quotes; write `{meant}`"));
        }
        if !in_tuple && text.contains('-') {
            return Some(format!("a header's scope is written `header(\"{text}\")`"));
        }
    }
    (!in_tuple).then(|| format!("this scope is the same for every caller; write {CHOICES}"))
}

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

    fn bound(&self, name: &str) -> bool {
        self.all().any(|bound| bound == name)
    }

    /// The mistake of an expression that computes with `token`, `global` or `header`, as if they
    /// were variables.
    fn built_in_inside(&self, value: &Expr) -> Option<syn::Error> {
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
fn root(value: &Expr) -> Option<&Ident> {
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

impl Part {
    /// The variables that the part names.
    pub(crate) fn names(&self) -> Vec<Ident> {
        match self {
            Self::Value(value) => names::variables(value.to_token_stream()),
            Self::Global | Self::Token | Self::Header(_) => Vec::new(),
        }
    }

    /// The call that adds this part to the scope.
    pub(crate) fn expand(&self, arguments: &Arguments<'_>) -> TokenStream {
        match self {
            Self::Global => quote!(.global()),
            Self::Token => quote!(.token()),
            Self::Header(name) => quote!(.header(#name)),
            Self::Value(value) => {
                let (part, reference) = (local("__idem_value"), reference_to(value));
                let opened = arguments.opened(&self.names());
                if opened.is_empty() {
                    quote!(.value(|#part| #part.is(#reference)))
                } else {
                    quote!(.value(|#part| { #opened #part.is(#reference) }))
                }
            }
        }
    }
}

/// `&value`, spanned so that a complaint about its type points at the user's expression.
pub(crate) fn reference_to(value: &Expr) -> TokenStream {
    let and = syn::Token![&](value.span());
    let binds_tighter = matches!(
        value,
        Expr::Path(_)
            | Expr::Field(_)
            | Expr::MethodCall(_)
            | Expr::Call(_)
            | Expr::Index(_)
            | Expr::Lit(_)
            | Expr::Macro(_)
            | Expr::Paren(_)
            | Expr::Reference(_)
    );
    let tokens = value.to_token_stream();
    if binds_tighter {
        return quote!(#and #tokens);
    }
    let mut parentheses = Group::new(Delimiter::Parenthesis, tokens);
    parentheses.set_span(value.span());
    quote!(#and #parentheses)
}

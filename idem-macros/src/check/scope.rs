//! Checks the value of `scope`, which says to which caller a key belongs.

use proc_macro2::Ident;
use quote::quote;
use syn::punctuated::Punctuated;
use syn::{Expr, ExprCall, ExprTuple, Lit, LitStr, Token};

use crate::check::header_name::{header_name, not_display};
use crate::check::scope_names::{Names, not_at_once, root};
use crate::messages::mistakes::Mistakes;
use crate::messages::words::code;
use crate::parse::names;

/// One part of a scope.
pub(crate) enum Part {
    Global,
    Token,
    Header(LitStr),
    /// An expression over the handler's parameters.
    Value(Box<Expr>),
}

impl Part {
    /// Returns the variables that the part uses.
    pub(crate) fn names(&self) -> Vec<Ident> {
        match self {
            Self::Value(value) => names::variables(value),
            Self::Global | Self::Token | Self::Header(_) => Vec::new(),
        }
    }
}

/// The possible scopes, for a message.
pub(crate) const CHOICES: &str = "`token` (the `Authorization` header), `header(\"x-workspace-id\")`, \
     `global` (all callers share keys), or an expression that uses the handler's arguments, such as `user.id`";

/// Reads the parts of a scope. Each element of a tuple is one part.
pub(crate) fn parts(value: &Expr, names: &Names, mistakes: &mut Mistakes) -> Vec<Part> {
    match value {
        Expr::Paren(inner) => parts(&inner.expr, names, mistakes),
        Expr::Group(inner) => parts(&inner.expr, names, mistakes),
        Expr::Tuple(tuple) if tuple.elems.is_empty() => {
            mistakes.at(tuple, format!("this scope is empty; write {CHOICES}"));
            Vec::new()
        }
        Expr::Tuple(tuple) => {
            let mut problems = Mistakes::default();
            let differs = tuple.elems.iter().any(|element| differs(element, names));
            let mut parts = Vec::new();
            for element in &tuple.elems {
                parts.extend(part(element, true, differs, names, &mut problems));
            }
            if problems.is_empty() && !differs {
                problems.at(tuple, same_for_all());
            }
            if problems.is_empty() {
                needless(tuple, &parts, names, &mut problems);
            }
            mistakes.append(problems);
            parts
        }
        value => {
            let differs = differs(value, names);
            let part = part(value, false, differs, names, mistakes);
            part.into_iter().collect()
        }
    }
}

/// Reports each element that adds nothing: an element that is given twice, and `global` beside a part that uses the request.
fn needless(tuple: &ExprTuple, parts: &[Part], names: &Names, mistakes: &mut Mistakes) {
    let each = || tuple.elems.iter().zip(parts);
    let written: Vec<String> = each()
        .map(|(element, part)| match part {
            Part::Header(_) => code(element).to_lowercase(),
            _ => code(element),
        })
        .collect();
    let of_the_request = |(element, part): &(&Expr, &Part)| match part {
        Part::Global => false,
        Part::Token | Part::Header(_) => true,
        Part::Value(_) => names.any_bound(element),
    };
    let by = each().find(of_the_request);
    for (at, (element, part)) in each().enumerate() {
        let is_comparable = !matches!(part, Part::Value(_)) || names.is_unambiguous(element);
        if is_comparable && written[..at].contains(&written[at]) {
            let twice = code(element);
            mistakes.at(
                element,
                format!("`{twice}` is given twice; keep one of them"),
            );
        } else if let (Part::Global, Some((by, _))) = (part, by) {
            let by = code(by);
            mistakes.at(
                element,
                format!("`global` adds nothing beside `{by}`; remove `global`"),
            );
        }
    }
}

fn same_for_all() -> String {
    format!(
        "this scope is the same for every caller, because it uses no argument of the handler; \
         write {CHOICES}"
    )
}

/// Returns whether a part of a scope uses a built-in name or a parameter of the handler. `global` counts, because
/// it says that every caller has the same scope.
fn differs(value: &Expr, names: &Names) -> bool {
    let is_built_in = |name: &Ident| {
        ["token", "global", "header"]
            .iter()
            .any(|word| name == word)
    };
    names.any_bound(value) || names::variables(value).iter().any(is_built_in)
}

fn part(
    value: &Expr,
    in_tuple: bool,
    differs: bool,
    names: &Names,
    mistakes: &mut Mistakes,
) -> Option<Part> {
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
            if let Some(result) = built_in_call(call, names) {
                return mistakes.take(result);
            }
        }
        Expr::Lit(literal) => {
            if let Some(problem) = literal_problem(&literal.lit, in_tuple, names) {
                mistakes.at(value, problem);
                return None;
            }
        }
        Expr::Array(list) if !list.elems.is_empty() => {
            mistakes.at(value, not_a_tuple(&list.elems));
            return None;
        }
        Expr::Macro(list) if list.mac.path.is_ident("vec") => {
            let parts = list
                .mac
                .parse_body_with(Punctuated::<Expr, Token![,]>::parse_terminated);
            if let Ok(parts) = parts {
                mistakes.at(value, not_a_tuple(&parts));
                return None;
            }
        }
        Expr::Tuple(_) if in_tuple => {
            let message =
                "a scope is one tuple, without tuples inside; remove the inner parentheses";
            mistakes.at(value, message);
            return None;
        }
        _ => {}
    }
    let problem = header_of_a_map(value, names)
        .or_else(|| names.built_in_inside(value))
        .or_else(|| names.unusable("scope", value))
        .or_else(|| names.unknown("scope", value, differs))
        .or_else(|| not_at_once("scope", value));
    if let Some(problem) = problem {
        mistakes.push(problem);
        return None;
    }
    if !differs && !in_tuple {
        mistakes.at(value, same_for_all());
        return None;
    }
    Some(Part::Value(Box::new(value.clone())))
}

/// Returns the mistake of `headers["x-tenant"]`: a `HeaderValue` does not implement `Display`.
fn header_of_a_map(value: &Expr, names: &Names) -> Option<syn::Error> {
    let name = names.header_in_a_map(value)?;
    let of_the_key = names.header_of_the_key(name);
    Some(of_the_key.unwrap_or_else(|| not_display(value, name)))
}

fn not_a_tuple(parts: &Punctuated<Expr, Token![,]>) -> String {
    let written = match parts.first() {
        Some(only) if parts.len() == 1 => code(only),
        _ => code(quote!((#parts))),
    };
    format!("the parts of a scope need a tuple; write `{written}`")
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
        "header" => Some(header_name(call, "x-workspace-id").and_then(|name| {
            let of_the_key = names.header_of_the_key(&name);
            of_the_key.map_or(Ok(Part::Header(name)), Err)
        })),
        "token" | "global" => Some(Err(syn::Error::new_spanned(
            call,
            format!("`{name}` takes no arguments; write `{name}`"),
        ))),
        _ => None,
    }
}

/// Returns the mistake of a literal, which is the same for every caller. The user probably meant a name in
/// quotes without the quotes.
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
            return Some(format!("unexpected quotes around a scope; write `{meant}`"));
        }
        if !in_tuple && text.contains('-') {
            return Some(format!(
                "a scope of a header needs `header`; write `header(\"{text}\")`"
            ));
        }
    }
    (!in_tuple).then(same_for_all)
}

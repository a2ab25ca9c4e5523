//! Checks the value of `key`, which says where an endpoint has its key.

use proc_macro2::Ident;
use syn::{Expr, Lit, LitStr};

use crate::check::header_name::{header_name, not_display};
use crate::check::scope_names::{Names, not_at_once};
use crate::messages::mistakes::Mistakes;
use crate::parse::names;

/// Where an endpoint has its key.
pub(crate) enum Key {
    Header(LitStr),
    /// An expression over the handler's parameters.
    Value(Box<Expr>),
}

impl Key {
    /// Returns the variables that the key uses.
    pub(crate) fn names(&self) -> Vec<Ident> {
        match self {
            Self::Value(value) => names::variables(value),
            Self::Header(_) => Vec::new(),
        }
    }
}

const CHOICES: &str = "write `header(\"x-github-delivery\")`, or an expression that uses the handler's \
     arguments, such as `event.id`";

/// Reads the value of `key`.
pub(crate) fn key(value: &Expr, names: &Names, mistakes: &mut Mistakes) -> Option<Key> {
    let is_free = |path: &syn::ExprPath, name: &str| path.path.is_ident(name) && !names.bound(name);
    let problem = match value {
        Expr::Paren(inner) => return key(&inner.expr, names, mistakes),
        Expr::Group(inner) => return key(&inner.expr, names, mistakes),
        Expr::Call(call) if matches!(&*call.func, Expr::Path(path) if is_free(path, "header")) => {
            let name = mistakes.take(header_name(call, "x-github-delivery"));
            return name.map(Key::Header);
        }
        Expr::Path(path) if is_free(path, "header") => {
            Some("`header` needs a name; write `header(\"x-github-delivery\")`".to_owned())
        }
        Expr::Path(path) if is_free(path, "token") || is_free(path, "global") => Some(format!(
            "a key names one operation of a caller, and `scope` names the caller; {CHOICES}"
        )),
        Expr::Lit(literal) => Some(match &literal.lit {
            Lit::Str(text) if text.value().contains('-') => format!(
                "the name of a header needs `header`; write `header(\"{}\")`",
                text.value()
            ),
            _ => same_for_all(),
        }),
        Expr::Tuple(_) => {
            Some("a key is one value; join several with `format!(\"{}-{}\", …)`".to_owned())
        }
        _ => None,
    };
    if let Some(problem) = problem {
        mistakes.at(value, problem);
        return None;
    }
    if let Some(name) = names.header_in_a_map(value) {
        mistakes.push(not_display(value, name));
        return None;
    }
    let unknown = || names.unknown("key", value, names.any_bound(value));
    let problem = names.unusable("key", value).or_else(unknown);
    if let Some(problem) = problem.or_else(|| not_at_once("key", value)) {
        mistakes.push(problem);
        return None;
    }
    if !names.any_bound(value) {
        mistakes.at(value, same_for_all());
        return None;
    }
    Some(Key::Value(Box::new(value.clone())))
}

fn same_for_all() -> String {
    format!(
        "this key is the same for every request, because it uses no argument of the handler; {CHOICES}"
    )
}

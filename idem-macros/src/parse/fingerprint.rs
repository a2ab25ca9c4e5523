//! Reads the value of `fingerprint`: which parts of the body distinguish a retry from a reused key.

use syn::{Expr, ExprCall, Lit, LitStr};

use crate::messages::mistakes::Mistakes;
use crate::messages::words::{code, nearest};

const HOW: &str =
    "`fingerprint` must be `body`, `json`, `json(\"/amount\", \"/currency\")` or `none`";

const WHOLE_BODY: &str = "an empty pointer means the whole body; write `fingerprint = json`";

/// Which parts of the body distinguish a retry from a reused key.
pub(crate) enum Fingerprint {
    Body,
    Json,
    Pointers(Vec<LitStr>),
    None,
}

impl Fingerprint {
    pub(crate) fn from_expr(value: &Expr, mistakes: &mut Mistakes) -> Option<Self> {
        let word = match value {
            Expr::Call(call) => match &*call.func {
                Expr::Path(path) if path.path.is_ident("json") => {
                    return Self::from_pointers(call, mistakes);
                }
                _ => None,
            },
            Expr::Path(path) => path.path.get_ident().map(ToString::to_string),
            Expr::Lit(literal) => match &literal.lit {
                Lit::Str(_) => {
                    mistakes.at(value, format!("{HOW}, without quotes"));
                    return None;
                }
                _ => None,
            },
            _ => None,
        };
        match word.as_deref() {
            Some("body") => return Some(Self::Body),
            Some("json") => return Some(Self::Json),
            Some("none") => return Some(Self::None),
            _ => {}
        }
        let meant = word.and_then(|word| nearest(&word, ["body", "json", "none"]));
        match meant {
            Some(meant) => mistakes.at(value, format!("did you mean `{meant}`? {HOW}")),
            None => mistakes.at(value, HOW),
        }
        None
    }

    fn from_pointers(call: &ExprCall, mistakes: &mut Mistakes) -> Option<Self> {
        if call.args.is_empty() {
            mistakes.at(
                call,
                "`json()` has no pointer; write `json` for the whole body, or `json(\"/amount\")`",
            );
            return None;
        }
        let mut pointers: Vec<LitStr> = Vec::new();
        for argument in &call.args {
            match pointer(argument) {
                Ok(pointer)
                    if pointers
                        .iter()
                        .any(|known| known.value() == pointer.value()) =>
                {
                    let pointer = pointer.value();
                    mistakes.at(
                        argument,
                        format!("`\"{pointer}\"` is given twice; keep one of them"),
                    );
                }
                Ok(pointer) => pointers.push(pointer),
                Err(problem) => mistakes.at(argument, problem),
            }
        }
        (pointers.len() == call.args.len()).then_some(Self::Pointers(pointers))
    }
}

/// Parses a JSON pointer of RFC 6901. An empty pointer is a mistake, because `json` means the same.
fn pointer(argument: &Expr) -> Result<LitStr, String> {
    if let Expr::Array(list) = argument {
        let pointers = code(&list.elems);
        return Err(format!(
            "unexpected brackets around JSON pointers; write `json({pointers})`"
        ));
    }
    let Expr::Lit(literal) = argument else {
        return Err("a JSON pointer needs quotes, such as `\"/amount\"`".to_owned());
    };
    let Lit::Str(text) = &literal.lit else {
        return Err("a JSON pointer needs quotes, such as `\"/amount\"`".to_owned());
    };
    let value = text.value();
    if value.is_empty() {
        return Err(WHOLE_BODY.to_owned());
    }
    if !value.starts_with('/') {
        // A path such as `$.lines[0].price` becomes a pointer.
        let is_name = |part: &&str| !matches!(*part, "" | "$");
        let parts = value.split(['.', '[', ']', '/']).filter(is_name);
        let fixed = parts.collect::<Vec<_>>().join("/");
        if fixed.is_empty() {
            return Err(WHOLE_BODY.to_owned());
        }
        return Err(format!(
            "a JSON pointer must begin with `/`; write `\"/{fixed}\"`"
        ));
    }
    let escapes = value.split('~').skip(1);
    if escapes.clone().any(|rest| !rest.starts_with(['0', '1'])) {
        return Err(
            "in a JSON pointer, write `~` as `~0`, and a `/` inside a name as `~1`".to_owned(),
        );
    }
    Ok(text.clone())
}

#[cfg(test)]
mod tests {
    use super::*;
    use syn::parse_quote;

    fn mistakes_of(value: &Expr) -> Option<String> {
        let mut mistakes = Mistakes::default();
        Fingerprint::from_expr(value, &mut mistakes);
        mistakes
            .into_compile_errors()
            .map(|errors| errors.to_string())
    }

    #[test]
    fn every_form_is_read() {
        let values: [Expr; 5] = [
            parse_quote!(body),
            parse_quote!(json),
            parse_quote!(json("/amount", "/lines/0/price")),
            parse_quote!(json("/a~1b", "/m~0n", "/")),
            parse_quote!(none),
        ];
        for value in values {
            assert_eq!(mistakes_of(&value), None);
        }
    }

    #[test]
    fn wrong_fingerprints_are_explained() {
        let table: [(Expr, &str); 14] = [
            (parse_quote!(md5), "`fingerprint` must be `body`"),
            (parse_quote!(jsno), "did you mean `json`"),
            (parse_quote!("json"), "without quotes"),
            (parse_quote!(json("amount")), "write `\\\"/amount\\\"`"),
            (parse_quote!(json("$.a.b")), "write `\\\"/a/b\\\"`"),
            (parse_quote!(json(".a")), "write `\\\"/a\\\"`"),
            (parse_quote!(json("$.a[0].b")), "write `\\\"/a/0/b\\\"`"),
            (parse_quote!(json("$")), "whole body"),
            (parse_quote!(json("")), "whole body"),
            (parse_quote!(json("/~2")), "`~0`"),
            (parse_quote!(json()), "has no pointer"),
            (parse_quote!(json(amount)), "needs quotes"),
            (parse_quote!(json("/a", "/a")), "is given twice"),
            (
                parse_quote!(json(["/a", "/b"])),
                "write `json(\\\"/a\\\", \\\"/b\\\")`",
            ),
        ];
        for (value, words) in table {
            let errors = mistakes_of(&value).expect("wrong");
            assert!(errors.contains(words), "{words}: {errors}");
        }
    }
}

//! Reads the values of `record` and `unknown`: lists of status classes and codes.

use std::fmt;

use proc_macro2::Span;
use syn::spanned::Spanned as _;
use syn::{Expr, ExprArray, Lit, LitInt};

use crate::messages::mistakes::Mistakes;

/// The argument that a list of statuses belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Of {
    Record,
    Unknown,
}

impl Of {
    const fn name(self) -> &'static str {
        match self {
            Self::Record => "record",
            Self::Unknown => "unknown",
        }
    }

    const fn how(self) -> &'static str {
        match self {
            Self::Record => {
                "`record` takes status classes and codes, such as `[2xx, 4xx, 503]`, or `all`"
            }
            Self::Unknown => "`unknown` takes status classes and codes, such as `[502, 504]`",
        }
    }

    const fn empty(self) -> &'static str {
        match self {
            Self::Record => {
                "an empty `record` records no response, so every retry would run the handler again; \
                 list a class such as `2xx`, or remove `record`"
            }
            Self::Unknown => {
                "an empty `unknown` changes nothing; \
                 list a status such as `504`, or remove `unknown`"
            }
        }
    }
}

/// The value of `record` or `unknown`.
#[derive(Debug)]
pub(crate) enum Statuses {
    All,
    These(Vec<Listed>),
}

/// A status class or code, and the token that the user wrote for it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Listed {
    pub(crate) status: Status,
    pub(crate) span: Span,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Status {
    Class(u16),
    Code(u16),
}

impl Statuses {
    pub(crate) fn from_expr(of: Of, value: &Expr, mistakes: &mut Mistakes) -> Option<Self> {
        match value {
            Expr::Array(list) => Self::from_list(of, list, mistakes),
            Expr::Path(path) if of == Of::Record && path.path.is_ident("all") => Some(Self::All),
            Expr::Lit(literal) if matches!(literal.lit, Lit::Int(_)) => {
                mistakes.at(value, format!("{}; add brackets", of.how()));
                None
            }
            _ => {
                mistakes.at(value, of.how());
                None
            }
        }
    }

    /// The classes and codes of a list. Empty for `all`.
    pub(crate) fn listed(&self) -> &[Listed] {
        match self {
            Self::All => &[],
            Self::These(listed) => listed,
        }
    }

    /// Returns whether an item changes nothing.
    pub(crate) fn has_needless(&self) -> bool {
        let statuses: Vec<Status> = self.listed().iter().map(|it| it.status).collect();
        (0..statuses.len()).any(|at| needless(&statuses, at).is_some())
    }

    fn from_list(of: Of, list: &ExprArray, mistakes: &mut Mistakes) -> Option<Self> {
        if list.elems.is_empty() {
            mistakes.at(list, of.empty());
            return None;
        }
        let mut statuses = Vec::new();
        let mut listed = Vec::new();
        for element in &list.elems {
            match status(of, element) {
                Ok(status) => {
                    statuses.push(status);
                    listed.push(Listed {
                        status,
                        span: element.span(),
                    });
                }
                Err(problem) => mistakes.at(element, problem),
            }
        }
        for (at, element) in list.elems.iter().enumerate() {
            if statuses.len() == list.elems.len()
                && let Some(problem) = needless(&statuses, at)
            {
                mistakes.at(element, problem);
            }
        }
        (statuses.len() == list.elems.len()).then_some(Self::These(listed))
    }
}

/// Returns the mistake of a status that changes nothing.
fn needless(statuses: &[Status], at: usize) -> Option<String> {
    let status = &statuses[at];
    if statuses[..at].contains(status) {
        return Some(format!("`{status}` is given twice; keep one of them"));
    }
    let Status::Code(code) = status else {
        return None;
    };
    let class = Status::Class(code / 100);
    let is_part = statuses.contains(&class);
    is_part.then(|| format!("`{status}` is part of `{class}`; remove it"))
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Class(class) => write!(f, "{class}xx"),
            Self::Code(code) => write!(f, "{code}"),
        }
    }
}

fn status(of: Of, element: &Expr) -> Result<Status, String> {
    match element {
        Expr::Lit(literal) => match &literal.lit {
            Lit::Int(number) => from_number(of, number),
            Lit::Str(text) => Err(format!(
                "unexpected quotes around a status; write `{}`",
                text.value()
            )),
            _ => Err(of.how().to_owned()),
        },
        Expr::Path(path) if of == Of::Record && path.path.is_ident("all") => {
            Err("`all` cannot be in a list; write `record = all`".to_owned())
        }
        Expr::Range(_) => Err(format!(
            "`{}` takes no ranges; write a class, such as `4xx`",
            of.name()
        )),
        _ => Err(of.how().to_owned()),
    }
}

fn from_number(of: Of, number: &LitInt) -> Result<Status, String> {
    let written = number.to_string();
    match number.suffix() {
        "xx" => match number.base10_digits() {
            "1" => Err(
                "a `1xx` is not a final response; the classes are `2xx`, `3xx`, `4xx` and `5xx`"
                    .into(),
            ),
            "2" => Ok(Status::Class(2)),
            "3" => Ok(Status::Class(3)),
            "4" => Ok(Status::Class(4)),
            "5" => Ok(Status::Class(5)),
            _ => Err(format!(
                "`{written}` is not a class of statuses; the classes are `2xx`, `3xx`, `4xx` and `5xx`"
            )),
        },
        "" => match number.base10_parse() {
            Ok(code @ 200..=599) => Ok(Status::Code(code)),
            Ok(100..=199) => Err(format!(
                "{written} is not the status of a final response; codes are 200 to 599"
            )),
            Ok(class @ 2..=5) => Err(format!(
                "{written} is not a status; write `{class}xx` for the class"
            )),
            _ => Err(format!(
                "{written} is not a status; codes are 200 to 599, classes are `2xx` to `5xx`"
            )),
        },
        suffix if suffix.eq_ignore_ascii_case("xx") => Err(format!(
            "classes are in lower case; write `{}`",
            written.to_lowercase()
        )),
        _ => Err(format!("cannot read `{written}` as a status; {}", of.how())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use syn::parse_quote;

    /// The statuses of a list, and none for `all`.
    fn read_as(of: Of, value: &Expr) -> Result<Vec<Status>, String> {
        let mut mistakes = Mistakes::default();
        let statuses = Statuses::from_expr(of, value, &mut mistakes);
        match mistakes.into_compile_errors() {
            None => {
                let statuses = statuses.expect("no mistake, so a value");
                Ok(statuses.listed().iter().map(|it| it.status).collect())
            }
            Some(errors) => Err(errors.to_string()),
        }
    }

    fn read(value: &Expr) -> Result<Vec<Status>, String> {
        read_as(Of::Record, value)
    }

    #[test]
    fn classes_codes_and_all_are_read() {
        assert_eq!(read(&parse_quote!(all)), Ok(vec![]));
        let listed = vec![Status::Class(2), Status::Class(4), Status::Code(503)];
        let value = parse_quote!([2xx, 4xx, 503,]);
        assert_eq!(read(&value), Ok(listed.clone()));
        assert_eq!(read_as(Of::Unknown, &value), Ok(listed));
    }

    #[test]
    fn unknown_takes_a_list_and_not_all() {
        for value in [
            parse_quote!(all),
            parse_quote!([all]),
            parse_quote!(504),
            parse_quote!("504"),
        ] {
            let errors = read_as(Of::Unknown, &value).expect_err("wrong");
            assert!(errors.contains("such as `[502, 504]`"), "{errors}");
        }
        let errors = read_as(Of::Unknown, &parse_quote!([])).expect_err("wrong");
        assert!(errors.contains("changes nothing"), "{errors}");
    }

    #[test]
    fn a_status_that_changes_nothing_is_a_mistake() {
        let errors = read(&parse_quote!([2xx, 200, 404, 2xx])).expect_err("wrong");
        assert!(errors.contains("`200` is part of `2xx`"), "{errors}");
        assert!(errors.contains("`2xx` is given twice"), "{errors}");
        assert!(!errors.contains("404"), "{errors}");
    }

    #[test]
    fn every_wrong_element_is_explained() {
        let errors = read(&parse_quote!([7xx, 99, 2XX, "404", all, 150, 4])).expect_err("wrong");
        for words in [
            "`7xx` is not a class",
            "99 is not a status",
            "write `2xx`",
            "write `404`",
            "`all` cannot be in a list",
            "150 is not the status",
            "write `4xx`",
        ] {
            assert!(errors.contains(words), "{words}: {errors}");
        }
    }

    #[test]
    fn values_of_another_kind_are_explained() {
        for value in [parse_quote!("all"), parse_quote!(2xx), parse_quote!(none)] {
            let errors = read(&value).expect_err("wrong");
            assert!(errors.contains("[2xx, 4xx, 503]"), "{errors}");
        }
        assert!(
            read(&parse_quote!([]))
                .expect_err("wrong")
                .contains("records no response")
        );
    }
}

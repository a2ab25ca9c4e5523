//! Reads scopes and keys from the standard input. Other users of the machine could read arguments.

use std::io::{BufRead, IsTerminal, stdin};
use std::str::FromStr;

use axum_idem::Scope;
use http::HeaderName;

use crate::failure::Failure;

/// One part of a scope, as the attribute of the service names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum ScopePart {
    Global,
    Token,
    Header(HeaderName),
    Value,
}

impl FromStr for ScopePart {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "global" => Ok(Self::Global),
            "token" => Ok(Self::Token),
            "value" => Ok(Self::Value),
            _ => {
                let name = text.strip_prefix("header:").and_then(|it| it.parse().ok());
                name.map(Self::Header).ok_or_else(|| {
                    "a part of a scope is `global`, `token`, `header:NAME` or `value`".to_owned()
                })
            }
        }
    }
}

/// The lines of the standard input.
pub(crate) struct Input<R> {
    lines: std::io::Lines<R>,
    is_terminal: bool,
}

pub(crate) fn input() -> Input<std::io::StdinLock<'static>> {
    Input {
        lines: stdin().lock().lines(),
        is_terminal: stdin().is_terminal(),
    }
}

impl<R: BufRead> Input<R> {
    /// Reads the parts of a scope, one in each line.
    pub(crate) fn scope(&mut self, parts: &[ScopePart]) -> Result<Scope, Failure> {
        let mut scope = Scope::new();
        for part in parts {
            scope = match part {
                ScopePart::Global => scope,
                ScopePart::Token => scope.token(self.required("the value of `Authorization`")?),
                ScopePart::Header(name) => {
                    let value = self.required(&format!("the value of `{name}`"))?;
                    scope.header(name.as_str(), value)
                }
                ScopePart::Value => scope.value(self.required("the value of the scope")?),
            };
        }
        Ok(scope)
    }

    /// Reads all keys, one in each line. From a terminal, reads one key.
    pub(crate) fn keys(&mut self) -> Result<Vec<String>, Failure> {
        let mut keys = vec![self.required("the key")?];
        while !self.is_terminal
            && let Some(key) = self.line()?
        {
            // `echo` after a list ends it with an empty line.
            if !key.is_empty() {
                keys.push(key);
            }
        }
        Ok(keys)
    }

    fn required(&mut self, what: &str) -> Result<String, Failure> {
        if self.is_terminal {
            eprint!("{what}: ");
        }
        let line = self.line()?.filter(|line| !line.is_empty());
        line.ok_or_else(|| {
            Failure::Usage(format!(
                "the standard input ends before {what}; write it as a line"
            ))
        })
    }

    fn line(&mut self) -> Result<Option<String>, Failure> {
        self.lines
            .next()
            .transpose()
            .map_err(|error| Failure::Usage(format!("the standard input cannot be read: {error}")))
    }
}

#[cfg(test)]
mod tests {
    use axum_idem::Idempotency;

    use super::*;

    fn of(text: &str) -> Input<&[u8]> {
        Input {
            lines: text.as_bytes().lines(),
            is_terminal: false,
        }
    }

    fn parts(texts: &[&str]) -> Vec<ScopePart> {
        let parts = texts.iter().map(|text| text.parse());
        parts.collect::<Result<_, _>>().expect("parts of a scope")
    }

    #[test]
    fn a_scope_is_built_as_the_attribute_builds_it() {
        let idem = Idempotency::in_memory();
        let mut input = of("Bearer t\r\nacme\n42\nk-1\nk-2\n\n");
        let parts = parts(&["token", "header:X-Workspace-Id", "value"]);
        let scope = input.scope(&parts).expect("three lines");
        let expected = Scope::new()
            .token("Bearer t")
            .header("x-workspace-id", "acme")
            .value(42);
        assert_eq!(idem.scope_id(&scope), idem.scope_id(&expected));
        assert_eq!(input.keys().expect("two lines"), ["k-1", "k-2"]);
    }

    /// `scope = (global, tenant::current())`
    #[test]
    fn global_may_be_a_part_of_a_tuple() {
        let idem = Idempotency::in_memory();
        let scope = of("eu\n").scope(&parts(&["global", "value"]));
        let expected = Scope::new().value("eu");
        let scope = scope.expect("one line");
        assert_eq!(idem.scope_id(&scope), idem.scope_id(&expected));
    }

    #[test]
    fn a_missing_line_is_an_error_and_not_an_empty_scope() {
        for text in ["", "\n"] {
            assert!(of(text).scope(&parts(&["value"])).is_err(), "{text:?}");
            assert!(of(text).keys().is_err(), "{text:?}");
        }
        assert!("header:".parse::<ScopePart>().is_err());
        assert!("user".parse::<ScopePart>().is_err());
    }
}

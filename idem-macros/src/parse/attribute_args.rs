//! Parses the arguments inside `#[idempotent(…)]`, one after the other.

use proc_macro2::{Ident, Span, TokenStream, TokenTree};
use quote::ToTokens as _;
use syn::ext::IdentExt as _;
use syn::parse::{ParseStream, Parser as _};
use syn::{Expr, Lit, LitBool, LitInt, Path, Token};

use crate::messages::mistakes::Mistakes;
use crate::messages::words::{all_of, nearest, one_of};
use crate::parse::argument_form::{Form, NAMES, example, form, is_name, with_underscores, word};
use crate::parse::duration;
use crate::parse::fingerprint::Fingerprint;
use crate::parse::statuses::{Of, Statuses};
use crate::parse::stray;

/// The arguments that the user wrote. The runtime contains the default of each other argument.
#[derive(Default)]
#[expect(clippy::struct_excessive_bools, reason = "one for each flag")]
pub(crate) struct AttributeArgs {
    pub(crate) scope: Option<Expr>,
    pub(crate) key: Option<Expr>,
    pub(crate) ttl_millis: Option<u64>,
    pub(crate) required: bool,
    pub(crate) record: Option<Statuses>,
    /// The word itself, to which a message points.
    pub(crate) record_rejections: Option<Ident>,
    pub(crate) records_no_body: bool,
    pub(crate) wait_millis: Option<u64>,
    pub(crate) hold_unknown: bool,
    pub(crate) unknown: Option<Statuses>,
    pub(crate) max_run_millis: Option<u64>,
    pub(crate) fingerprint: Option<Fingerprint>,
    /// The word itself, to which a message points.
    pub(crate) transactional: Option<Ident>,
    pub(crate) runtime: Option<Expr>,
    pub(crate) facade: Option<Path>,
    /// The user tried to write a `scope`. A missing scope is then not a second mistake.
    pub(crate) scope_is_meant: bool,
    given: Vec<Ident>,
}

impl AttributeArgs {
    /// Parses all arguments. A mistake in one argument does not stop the parser.
    pub(crate) fn parse(tokens: TokenStream, mistakes: &mut Mistakes) -> Self {
        let mut args = Self {
            scope_is_meant: mentions_scope(tokens.clone()),
            ..Self::default()
        };
        let parser = |input: ParseStream<'_>| {
            while !input.is_empty() {
                args.parse_one(input, mistakes);
            }
            Ok(())
        };
        if let Err(error) = parser.parse2(tokens) {
            mistakes.push(error);
        }
        args
    }

    fn parse_one(&mut self, input: ParseStream<'_>, mistakes: &mut Mistakes) {
        if let Some(value) = stray::value_of_scope(input) {
            self.scope_is_meant = true;
            mistakes.at(&value, stray::as_scope(&value, self.scope.as_ref()));
            return skip_argument(input);
        }
        let Ok(name) = word(input) else {
            self.not_a_name(input, mistakes);
            return skip_argument(input);
        };
        if input.peek(Token![-]) {
            let name = with_underscores(&name, input);
            if self.is_known(&name, mistakes) {
                mistakes.at(
                    &name,
                    format!("the name of this argument has underscores; write `{name}`"),
                );
            }
            return skip_argument(input);
        }
        let form = match form(&name, input) {
            Ok(form) => form,
            Err(error) => {
                if self.is_known(&name, mistakes) {
                    mistakes.push(error);
                }
                return skip_argument(input);
            }
        };
        let is_before_a_name = word(&input.fork()).is_ok_and(|next| is_name(&next));
        if !(input.is_empty() || input.peek(Token![,]) || is_before_a_name) {
            // The tokens that follow are part of the same mistake, so the argument counts as given.
            if self.is_known(&name, mistakes) && self.is_first(&name, mistakes) {
                mistakes.at_span(input.span(), stray::after(&name, &form, input));
            }
            return skip_argument(input);
        }
        self.set(&name, form, mistakes);
        let comma = input.parse::<Option<Token![,]>>();
        if is_before_a_name && !comma.is_ok_and(|comma| comma.is_some()) {
            mistakes.at_span(input.span(), "expected a comma before the next argument");
        }
    }

    /// Reports a token that cannot begin an argument.
    fn not_a_name(&mut self, input: ParseStream<'_>, mistakes: &mut Mistakes) {
        let span = input.span();
        let literal = input.parse::<Option<Lit>>().ok().flatten();
        match literal {
            Some(Lit::Str(name)) if NAMES.contains(&&*name.value()) => {
                let written = example(&name.value());
                let message = format!("unexpected quotes around an argument; write `{written}`");
                mistakes.at(name, message);
            }
            Some(Lit::Str(scope)) if ["token", "global"].contains(&&*scope.value()) => {
                self.scope_is_meant = true;
                let written = scope.value();
                let message =
                    format!("unexpected quotes around a scope; write `scope = {written}`");
                mistakes.at(scope, message);
            }
            // `record = 2xx, 4xx`
            Some(Lit::Int(status)) if self.ends_with_statuses() => {
                if let Some(message) = self.outside_of_the_list(&status) {
                    mistakes.at(status, message);
                }
            }
            _ => mistakes.at_span(span, format!("expected an argument: {}", one_of(NAMES))),
        }
    }

    fn ends_with_statuses(&self) -> bool {
        let last = self.given.last();
        last.is_some_and(|last| last == "record" || last == "unknown")
    }

    /// Returns the mistake of a status behind a list, or `None` if the list already has a mistake.
    fn outside_of_the_list(&self, status: &LitInt) -> Option<String> {
        let name = self.given.last()?;
        let list = if name == "record" {
            &self.record
        } else {
            &self.unknown
        };
        list.as_ref().map(|_| {
            format!("`{status}` is not in the list; write it inside the brackets of `{name}`")
        })
    }

    fn set(&mut self, name: &Ident, form: Form, mistakes: &mut Mistakes) {
        if !self.is_known(name, mistakes) || !self.is_first(name, mistakes) {
            return;
        }
        let argument = name.to_string();
        match argument.as_str() {
            "required" => self.required = is_flag(name, &form, mistakes),
            "transactional" => {
                let is_set = is_flag(name, &form, mistakes);
                self.transactional = is_set.then(|| name.clone());
            }
            "record_rejections" => {
                let is_set = is_flag(name, &form, mistakes);
                self.record_rejections = is_set.then(|| name.clone());
            }
            _ => {
                if let Some(value) = value(name, &argument, form, mistakes) {
                    self.set_value(&argument, value, mistakes);
                }
            }
        }
    }

    fn set_value(&mut self, argument: &str, value: Expr, mistakes: &mut Mistakes) {
        match argument {
            "scope" => self.scope = Some(value),
            "key" => self.key = Some(value),
            "ttl" => self.ttl_millis = mistakes.take(duration::from_expr("ttl", "24h", &value)),
            "record" => self.record = Statuses::from_expr(Of::Record, &value, mistakes),
            "record_body" => self.records_no_body = mistakes.take(no_body(&value)).is_some(),
            "in_flight" => self.wait_millis = mistakes.take(in_flight(&value)).flatten(),
            "on_unknown" => {
                let hold = mistakes.take(choice("on_unknown", ["rerun", "hold"], &value));
                self.hold_unknown = hold == Some("hold");
            }
            "unknown" => self.unknown = Statuses::from_expr(Of::Unknown, &value, mistakes),
            "max_run" => {
                self.max_run_millis = mistakes.take(duration::from_expr("max_run", "15m", &value));
            }
            "fingerprint" => self.fingerprint = Fingerprint::from_expr(&value, mistakes),
            "runtime" => self.runtime = Some(value),
            _ => self.facade = mistakes.take(facade(value)),
        }
    }

    fn is_known(&mut self, name: &Ident, mistakes: &mut Mistakes) -> bool {
        let given = name.to_string();
        if NAMES.contains(&given.as_str()) {
            return true;
        }
        let meant = other_word(&given).or_else(|| nearest(&given, NAMES));
        if let Some(place) = of_the_service(&given) {
            mistakes.at(
                name,
                format!("`{given}` is a setting of the whole service, not of one endpoint; write `{place}`"),
            );
        } else if let Some(meant) = meant {
            self.scope_is_meant |= meant == "scope";
            mistakes.at(
                name,
                format!(
                    "unknown argument `{given}`; did you mean `{meant}`? the arguments are {}",
                    all_of(NAMES)
                ),
            );
        } else if matches!(given.as_str(), "token" | "global" | "header") {
            self.scope_is_meant = true;
            let written = match given.as_str() {
                "header" => "header(\"x-workspace-id\")",
                given => given,
            };
            let message = format!("`{given}` is a value of `scope`; write `scope = {written}`");
            mistakes.at(name, message);
        } else {
            mistakes.at(
                name,
                format!(
                    "unknown argument `{given}`; the arguments are {}",
                    all_of(NAMES)
                ),
            );
        }
        false
    }

    fn is_first(&mut self, name: &Ident, mistakes: &mut Mistakes) -> bool {
        if self.given.contains(name) {
            mistakes.at(name, format!("`{name}` is given twice; keep one of them"));
            return false;
        }
        self.given.push(name.clone());
        true
    }
}

/// Returns the argument that other libraries call `given`.
fn other_word(given: &str) -> Option<&'static str> {
    Some(match given {
        "expires" | "expiry" | "expiration" | "lifetime" | "retention" => "ttl",
        "timeout" | "run_timeout" | "deadline" | "time_limit" => "max_run",
        "user" | "tenant" | "owner" => "scope",
        "status" | "statuses" | "cache" => "record",
        "conflict" | "on_conflict" | "concurrent" | "wait" => "in_flight",
        "store" | "storage" | "engine" => "runtime",
        "hash" | "body" => "fingerprint",
        "mandatory" | "optional" | "key_required" => "required",
        _ => return None,
    })
}

/// Returns the method that sets `given` for the whole service, if there is one.
fn of_the_service(given: &str) -> Option<String> {
    const OF_THE_DIALECT: [&str; 10] = [
        "documentation",
        "echo_key",
        "key_header",
        "key_rule",
        "key_syntax",
        "max_key_len",
        "min_key_len",
        "mismatch",
        "no_replay_header",
        "replay_header",
    ];
    const OF_THE_BUILDER: [&str; 17] = [
        "body_timeout",
        "dialect",
        "fingerprint_digest",
        "id_secret",
        "label",
        "lease",
        "max_recorded_body",
        "max_request_body",
        "max_running",
        "namespace",
        "observer",
        "on_store_error",
        "record_set_cookie",
        "redact",
        "render_problem",
        "response_timeout",
        "store_timeout",
    ];
    if OF_THE_DIALECT.contains(&given) {
        return Some(format!("Dialect::ietf().{given}(…)"));
    }
    let builder = OF_THE_BUILDER.contains(&given);
    builder.then(|| format!("Idempotency::builder().{given}(…)"))
}

/// Returns whether the user tried to write a `scope`, even in a wrong form.
fn mentions_scope(tokens: TokenStream) -> bool {
    tokens.into_iter().any(|token| match token {
        TokenTree::Ident(name) => name.unraw() == "scope",
        TokenTree::Group(group) => mentions_scope(group.stream()),
        TokenTree::Literal(literal) => literal.to_string() == "\"scope\"",
        TokenTree::Punct(_) => false,
    })
}

fn is_flag(name: &Ident, form: &Form, mistakes: &mut Mistakes) -> bool {
    match form {
        Form::Alone => return true,
        Form::Called(paren) => mistakes.at_span(
            paren.span.join(),
            format!("`{name}` takes no value; write `{name}` alone"),
        ),
        Form::Assigned(value) if is_false(value) => mistakes.at(
            value,
            format!("`{name}` takes no value; remove it, because it is off by default"),
        ),
        Form::Assigned(value) => mistakes.at(
            value,
            format!("`{name}` takes no value; write `{name}` alone"),
        ),
    }
    false
}

fn is_false(value: &Expr) -> bool {
    let Expr::Lit(literal) = value else {
        return false;
    };
    matches!(literal.lit, Lit::Bool(LitBool { value: false, .. }))
}

fn value(name: &Ident, argument: &str, form: Form, mistakes: &mut Mistakes) -> Option<Expr> {
    let span: Span = match form {
        Form::Assigned(value) => return Some(*value),
        Form::Alone => name.span(),
        Form::Called(paren) => paren.span.join(),
    };
    let how = example(argument);
    mistakes.at_span(
        span,
        format!("`{name}` needs `=` and a value; write `{how}`"),
    );
    None
}

/// Returns the milliseconds to wait, or `None` for `reject`.
fn in_flight(value: &Expr) -> syn::Result<Option<u64>> {
    if let Expr::Call(call) = value
        && is_word(&call.func, "wait")
    {
        if let (1, Some(time)) = (call.args.len(), call.args.first()) {
            return duration::from_expr("wait", "5s", time).map(Some);
        }
        return Err(syn::Error::new_spanned(
            value,
            "`wait` takes one duration; write `wait(\"5s\")`",
        ));
    }
    if is_word(value, "wait") {
        let message = "`wait` needs a duration; write `wait(\"5s\")`";
        return Err(syn::Error::new_spanned(value, message));
    }
    choice("in_flight", ["reject", "wait(\"5s\")"], value).map(|_| None)
}

fn is_word(value: &Expr, word: &str) -> bool {
    matches!(value, Expr::Path(path) if path.path.is_ident(word))
}

/// Returns the word that `value` is.
fn choice(argument: &str, words: [&'static str; 2], value: &Expr) -> syn::Result<&'static str> {
    if let Some(word) = words.into_iter().find(|word| is_word(value, word)) {
        return Ok(word);
    }
    // `"wait"` means `wait("5s")`.
    let is_meant = |word: &&str, text: &str| *word == text || word.starts_with(&format!("{text}("));
    if let Expr::Lit(literal) = value
        && let Lit::Str(text) = &literal.lit
        && let Some(word) = words.into_iter().find(|word| is_meant(word, &text.value()))
    {
        let message = format!(
            "unexpected quotes around the value of `{argument}`; write `{argument} = {word}`"
        );
        return Err(syn::Error::new_spanned(value, message));
    }
    let word = value.to_token_stream().to_string();
    let hint = match nearest(&word, words) {
        Some(meant) => format!("did you mean `{meant}`? "),
        None => String::new(),
    };
    let message = format!("{hint}`{argument}` must be {}", one_of(words));
    Err(syn::Error::new_spanned(value, message))
}

/// Checks the value of `record_body`, which has one word.
fn no_body(value: &Expr) -> syn::Result<()> {
    if is_word(value, "none") {
        return Ok(());
    }
    let message = match value {
        Expr::Lit(literal) if matches!(&literal.lit, Lit::Str(text) if text.value() == "none") => {
            "unexpected quotes around the value of `record_body`; write `record_body = none`"
        }
        _ => "`record_body` must be `none`; remove the argument to record the whole body",
    };
    Err(syn::Error::new_spanned(value, message))
}

fn facade(value: Expr) -> syn::Result<Path> {
    match value {
        Expr::Path(path) if path.qself.is_none() => Ok(path.path),
        Expr::Lit(literal) => {
            let message = match &literal.lit {
                Lit::Str(text) => format!(
                    "unexpected quotes around a path; write `crate = {}`",
                    text.value()
                ),
                _ => "`crate` takes a path, such as `::axum_idem`".to_owned(),
            };
            Err(syn::Error::new_spanned(literal, message))
        }
        other => Err(syn::Error::new_spanned(
            other,
            "`crate` takes a path, such as `::axum_idem`",
        )),
    }
}

/// Skips all tokens up to the next comma, and the comma.
fn skip_argument(input: ParseStream<'_>) {
    while !input.is_empty() {
        if input
            .parse::<Option<Token![,]>>()
            .is_ok_and(|comma| comma.is_some())
            || input.parse::<TokenTree>().is_err()
        {
            return;
        }
    }
}

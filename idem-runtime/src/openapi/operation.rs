//! What the documentation of one annotated operation says, in the dialect of its service.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use http::{HeaderName, StatusCode, header};

use crate::openapi::facts::{Facts, KeyName};
use crate::request::scope::ScopeMissing;
use crate::response::problem::Problem;
use crate::service::idempotency::Idempotency;
use crate::settings::dialect::{Dialect, KeySyntax, ProblemFormat};

/// Marks the key header of an annotated operation until the document is complete. Its value is the facts.
pub(crate) const MARK: &str = "x-axum-idem";

/// The name of the schema of a problem.
pub(crate) const SCHEMA: &str = "IdempotencyProblem";

const REPLAYED: &str =
    "`true` when this is the recorded response of an earlier request with the same key.";

const RECEIPT: &str = "`true` when this is a recorded response without its body, because the service does not record the body.";

pub(crate) const ECHOED: &str = "The key of the request.";

/// The body of a refusal in the default rendering.
#[derive(Debug)]
pub(crate) struct ProblemBody {
    pub(crate) media_type: &'static str,
    pub(crate) description: &'static str,
    /// The name, the description, and whether every problem has the member.
    pub(crate) members: &'static [(&'static str, &'static str, bool)],
}

impl ProblemBody {
    /// Returns the body of refusals of a service, unless the service renders them itself.
    pub(crate) fn of(idem: &Idempotency) -> Option<&'static Self> {
        let settings = idem.settings();
        (!settings.has_own_rendering()).then(|| match settings.dialect.problem_format() {
            ProblemFormat::ProblemJson => &PROBLEM_JSON,
            ProblemFormat::AgenticCommerce => &AGENTIC_COMMERCE,
        })
    }

    /// The type of a member in JSON Schema.
    pub(crate) fn type_of(member: &str) -> &'static str {
        if member == "status" {
            "integer"
        } else {
            "string"
        }
    }
}

static PROBLEM_JSON: ProblemBody = ProblemBody {
    media_type: "application/problem+json",
    description: "Why a request with a key was refused (RFC 9457).",
    members: &[
        ("type", "The URI of this kind of problem.", true),
        ("title", "A summary of this kind of problem.", true),
        ("status", "The HTTP status.", true),
        (
            "detail",
            "What is wrong with this request, and what to do.",
            true,
        ),
        (
            "code",
            "Distinguishes the kinds of problems. A code never changes.",
            true,
        ),
        (
            "instance",
            "The URN of the record, for operators of the service.",
            false,
        ),
    ],
};

static AGENTIC_COMMERCE: ProblemBody = ProblemBody {
    media_type: "application/json",
    description: "Why a request with a key was refused (Agentic Commerce Protocol).",
    members: &[
        ("type", "The class of the problem.", true),
        (
            "code",
            "Distinguishes the kinds of problems. A code never changes.",
            true,
        ),
        (
            "message",
            "What is wrong with this request, and what to do.",
            true,
        ),
    ],
};

/// The headers of a response that can be a replay, with their descriptions. Their values are booleans.
pub(crate) fn replay_headers(
    facts: Facts,
    dialect: &Dialect,
) -> impl Iterator<Item = (HeaderName, &'static str)> {
    let replayed = dialect.replay_header_name().cloned();
    let receipt = facts.records_no_body().then_some(Dialect::RECEIPT_HEADER);
    let replayed = replayed.map(|name| (name, REPLAYED));
    replayed
        .into_iter()
        .chain(receipt.map(|name| (name, RECEIPT)))
}

/// The key header of an operation.
#[derive(Debug)]
pub(crate) struct KeyHeader {
    pub(crate) name: String,
    pub(crate) description: String,
    pub(crate) is_required: bool,
    /// The length of the header value in characters.
    pub(crate) len: (usize, usize),
    pub(crate) pattern: Option<&'static str>,
}

impl KeyHeader {
    /// Returns what carries the mark until the document is complete: the key header in the default dialect. An operation whose
    /// key is not in a header has a placeholder instead.
    pub(crate) fn marked<Name: KeyName>(facts: Facts) -> Self {
        let mut own = String::new();
        Name::append_to(&mut own);
        if !facts.has_own_key() {
            return Self::of_the_service(facts, &Dialect::default());
        }
        if !own.is_empty() {
            return Self::of_the_endpoint(&own, facts, &Dialect::default());
        }
        Self {
            name: MARK.to_owned(),
            description: "A mark that `Idempotency::document` removes.".to_owned(),
            is_required: false,
            len: (0, 0),
            pattern: None,
        }
    }

    /// Returns the key header of an operation in this dialect, or `None` when its key is not in a header. `marked` is the name
    /// of the parameter with the mark.
    pub(crate) fn new(marked: &str, facts: Facts, dialect: &Dialect) -> Option<Self> {
        match marked {
            MARK => None,
            own if facts.has_own_key() => Some(Self::of_the_endpoint(own, facts, dialect)),
            _ => Some(Self::of_the_service(facts, dialect)),
        }
    }

    /// The header of `key = header("…")`. Its sender knows nothing of the service, so quotes are never required.
    fn of_the_endpoint(name: &str, facts: Facts, dialect: &Dialect) -> Self {
        let without = if facts.requires_key() {
            "A request without this header is refused."
        } else {
            "A request without this header is not safe to retry."
        };
        Self {
            name: canonical(name),
            description: format!(
                "Identifies the operation. A repeated request with the same value does not run the operation again and \
                 gets the first response. {without}"
            ),
            is_required: facts.requires_key(),
            len: (dialect.min_key_bytes().max(1), dialect.max_key_bytes()),
            pattern: None,
        }
    }

    fn of_the_service(facts: Facts, dialect: &Dialect) -> Self {
        let quotes = match dialect.syntax() {
            KeySyntax::StructuredString => 2,
            KeySyntax::Lenient | KeySyntax::Raw => 0,
        };
        let without = if facts.requires_key() {
            "A request without a key is refused."
        } else {
            "A request without a key is not safe to retry."
        };
        let form = if quotes > 0 {
            " The key is a quoted string (RFC 9651)."
        } else {
            ""
        };
        Self {
            name: canonical(dialect.key_header_name().as_str()),
            description: format!(
                "Identifies the operation. Create one key for each operation, and send the same key with every \
                 retry. A retry does not run the operation again and gets the first response. {without}{form}"
            ),
            is_required: facts.requires_key(),
            len: (
                dialect.min_key_bytes().max(1) + quotes,
                dialect.max_key_bytes().saturating_add(quotes),
            ),
            pattern: (quotes > 0).then_some("^\".*\"$"),
        }
    }
}

/// One refusal that an operation can return.
#[derive(Debug)]
pub(crate) struct Refusal {
    pub(crate) code: &'static str,
    pub(crate) title: &'static str,
}

/// A header that a refusal can have.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct RefusalHeader {
    pub(crate) name: HeaderName,
    pub(crate) is_number: bool,
    pub(crate) description: &'static str,
}

impl RefusalHeader {
    const RETRY_AFTER: Self = Self {
        name: header::RETRY_AFTER,
        is_number: true,
        description: "The number of seconds to wait before a retry.",
    };
    const CHALLENGE: Self = Self {
        name: header::WWW_AUTHENTICATE,
        is_number: false,
        description: "The authentication scheme.",
    };
    const LINK: Self = Self {
        name: header::LINK,
        is_number: false,
        description: "The page that documents the use of keys.",
    };
}

/// All refusals with one status.
#[derive(Debug, Default)]
pub(crate) struct Refusals {
    pub(crate) each: Vec<Refusal>,
    pub(crate) headers: Vec<RefusalHeader>,
    /// `None` when the service renders refusals itself.
    pub(crate) body: Option<&'static ProblemBody>,
}

impl Refusals {
    /// The description of the response, below that of the service when it has one.
    pub(crate) fn describe(&self, own: &str) -> String {
        let mut text = match own.trim_end() {
            "" => "The request was refused.".to_owned(),
            own => format!("{own}\n\nOr the request was refused."),
        };
        text.push('\n');
        for Refusal { code, title } in &self.each {
            // A string takes everything.
            let _ = write!(text, "\n- `{code}`: {title}.");
        }
        text
    }

    pub(crate) fn codes(&self) -> Vec<&'static str> {
        let mut codes: Vec<_> = self.each.iter().map(|refusal| refusal.code).collect();
        codes.dedup();
        codes
    }
}

/// Returns the refusals of an operation, by their status.
pub(crate) fn refusals(facts: Facts, idem: &Idempotency) -> BTreeMap<StatusCode, Refusals> {
    let settings = idem.settings();
    let when = |is_possible: bool, problem: fn() -> Problem| is_possible.then(problem);
    let possible = [
        when(facts.requires_key(), Problem::key_missing),
        Some(Problem::key_invalid("")),
        when(facts.has_token(), || {
            Problem::scope_missing(ScopeMissing::Token)
        }),
        when(facts.has_header(), || {
            Problem::scope_missing(ScopeMissing::Header)
        }),
        when(!facts.is_streamed(), Problem::body_incomplete),
        when(!facts.is_streamed(), Problem::body_timeout),
        when(!facts.is_streamed(), Problem::body_too_large),
        Some(Problem::key_reused()),
        Some(Problem::key_in_flight()),
        Some(Problem::response_not_kept()),
        when(facts.holds_unknown(), Problem::outcome_unknown),
        when(facts.is_transactional(), Problem::overtaken),
        when(facts.is_transactional(), || Problem::commit_failed(false)),
        when(facts.is_transactional(), || Problem::commit_failed(true)),
        when(facts.is_transactional(), Problem::commit_unknown),
        when(facts.is_transactional(), Problem::not_transactional),
        // Also with `OnStoreError::FailOpen`: an entry that cannot be decoded never runs.
        Some(Problem::store_unavailable()),
        Some(Problem::capacity()),
        when(!facts.is_global(), Problem::share),
        when(settings.max_running.is_some(), Problem::busy),
        Some(Problem::run_timeout()),
        when(!facts.has_own_runtime(), Problem::not_installed),
        when(settings.has_own_rendering(), Problem::render_failed),
    ];
    let mut by_status: BTreeMap<_, Refusals> = BTreeMap::new();
    for problem in possible.into_iter().flatten() {
        let problem = problem.in_dialect(&settings.dialect);
        let refusals = by_status.entry(problem.status()).or_default();
        refusals.each.push(Refusal {
            code: problem.rendered_code(),
            title: problem.title(),
        });
        let headers = [
            (problem.retry_after().is_some(), RefusalHeader::RETRY_AFTER),
            (
                problem.status() == StatusCode::UNAUTHORIZED,
                RefusalHeader::CHALLENGE,
            ),
            (
                settings.dialect.documentation_url().is_some(),
                RefusalHeader::LINK,
            ),
        ];
        for (is_sent, header) in headers {
            if is_sent && !refusals.headers.contains(&header) {
                refusals.headers.push(header);
            }
        }
        refusals.body = ProblemBody::of(idem);
    }
    by_status
}

/// `idempotency-key` as `Idempotency-Key`, as people write it. The case has no meaning in HTTP.
pub(crate) fn canonical(name: &str) -> String {
    let parts = name.split('-').map(|part| {
        if part == "www" {
            return "WWW".to_owned();
        }
        let (first, rest) = part.split_at(part.len().min(1));
        format!("{}{rest}", first.to_ascii_uppercase())
    });
    parts.collect::<Vec<_>>().join("-")
}

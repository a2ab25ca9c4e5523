//! How one service speaks on the wire: header names, statuses and key rules.

use std::fmt;
use std::sync::Arc;

use http::{HeaderName, StatusCode};

/// How one service speaks on the wire.
///
/// A dialect changes what requests and answers look like, never what is stored: a record that was
/// written under one dialect replays under another.
///
/// ```
/// use idem_runtime::Dialect;
///
/// let dialect = Dialect::default()
///     .max_key_len(128)
///     .key_rule(|key| !matches!(key, "123" | "test" | "random"))
///     .replay_header("Idempotent-Replay");
/// # let _ = dialect;
/// ```
#[derive(Clone)]
pub struct Dialect {
    key_header: HeaderName,
    key_len: (usize, usize),
    key_rule: Option<Arc<KeyRule>>,
    key_syntax: KeySyntax,
    replay_header: Option<HeaderName>,
    mismatch: StatusCode,
    in_flight: StatusCode,
    missing: StatusCode,
    documentation: Option<Arc<str>>,
}

type KeyRule = dyn Fn(&str) -> bool + Send + Sync;

/// How the key stands in its header.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum KeySyntax {
    /// `"abc"` and `abc` are the same key. An unquoted key is visible ASCII without commas and
    /// quotes; a quoted one follows RFC 9651, section 3.3.3.
    #[default]
    Lenient,
    /// Only a quoted string, as the IETF draft asks (section 2.1).
    StructuredString,
    /// Every byte of the header is the key, its quotes too, as long as it is UTF-8.
    Raw,
}

impl Default for Dialect {
    fn default() -> Self {
        Self {
            key_header: Self::DEFAULT_KEY_HEADER,
            key_len: (1, 255),
            key_rule: None,
            key_syntax: KeySyntax::Lenient,
            replay_header: Some(HeaderName::from_static("idempotency-replayed")),
            mismatch: StatusCode::CONFLICT,
            in_flight: StatusCode::CONFLICT,
            missing: StatusCode::BAD_REQUEST,
            documentation: None,
        }
    }
}

impl Dialect {
    pub(crate) const DEFAULT_KEY_HEADER: HeaderName = HeaderName::from_static("idempotency-key");

    /// A profile of draft-ietf-httpapi-idempotency-key-header-07: quoted keys only (section 2.1)
    /// and 422 for a key that is used again with another request (section 2.7).
    #[must_use]
    pub fn ietf() -> Self {
        Self::default()
            .key_syntax(KeySyntax::StructuredString)
            .mismatch(StatusCode::UNPROCESSABLE_ENTITY)
    }

    /// The names that clients of Stripe know: `Idempotent-Replayed: true`, and keys of up to 255
    /// characters that are taken as they stand.
    #[must_use]
    pub fn stripe() -> Self {
        Self::default()
            .key_syntax(KeySyntax::Raw)
            .replay_header("idempotent-replayed")
    }

    /// The header that carries the key. `Idempotency-Key` by default.
    ///
    /// # Panics
    ///
    /// When `name` is not a header name.
    #[must_use]
    pub fn key_header(mut self, name: &str) -> Self {
        self.key_header = header_name(name);
        self
    }

    /// The fewest bytes that a key may have, counted after unquoting. 1 by default; an empty key is
    /// always refused.
    #[must_use]
    pub fn min_key_len(mut self, bytes: usize) -> Self {
        self.key_len.0 = bytes;
        self
    }

    /// The most bytes that a key may have, counted after unquoting. 255 by default.
    #[must_use]
    pub fn max_key_len(mut self, bytes: usize) -> Self {
        self.key_len.1 = bytes;
        self
    }

    /// A rule of the service's own: a key for which it says `false` is refused with 400.
    ///
    /// It sees the key after unquoting, and runs before anything is read or stored.
    #[must_use]
    pub fn key_rule(mut self, allows: impl Fn(&str) -> bool + Send + Sync + 'static) -> Self {
        self.key_rule = Some(Arc::new(allows));
        self
    }

    /// How the key stands in its header.
    #[must_use]
    pub fn key_syntax(mut self, syntax: KeySyntax) -> Self {
        self.key_syntax = syntax;
        self
    }

    /// The header that marks a replay, with the value `true`. `Idempotency-Replayed` by default.
    ///
    /// # Panics
    ///
    /// When `name` is not a header name.
    #[must_use]
    pub fn replay_header(mut self, name: &str) -> Self {
        self.replay_header = Some(header_name(name));
        self
    }

    /// Replays look like the first answer and carry no mark.
    #[must_use]
    pub fn no_replay_header(mut self) -> Self {
        self.replay_header = None;
        self
    }

    /// The status for a key that was used with another request. 409 by default.
    #[must_use]
    pub fn mismatch(mut self, status: StatusCode) -> Self {
        self.mismatch = status;
        self
    }

    /// The status for a key whose first request still runs. 409 by default.
    #[must_use]
    pub fn in_flight(mut self, status: StatusCode) -> Self {
        self.in_flight = status;
        self
    }

    /// The status for a request without a key where the endpoint says `required`. 400 by default.
    #[must_use]
    pub fn missing(mut self, status: StatusCode) -> Self {
        self.missing = status;
        self
    }

    /// The page on which the service explains its use of keys (section 2.7 of the IETF draft).
    ///
    /// The `type` of every problem then is this address with the problem's code as fragment.
    #[must_use]
    pub fn documentation(mut self, url: impl Into<Arc<str>>) -> Self {
        self.documentation = Some(url.into());
        self
    }

    pub(crate) fn key_header_name(&self) -> &HeaderName {
        &self.key_header
    }

    pub(crate) fn min_key_bytes(&self) -> usize {
        self.key_len.0
    }

    pub(crate) fn max_key_bytes(&self) -> usize {
        self.key_len.1
    }

    pub(crate) fn rule_allows(&self, key: &str) -> bool {
        self.key_rule.as_ref().is_none_or(|allows| allows(key))
    }

    pub(crate) fn syntax(&self) -> KeySyntax {
        self.key_syntax
    }

    pub(crate) fn replay_header_name(&self) -> Option<&HeaderName> {
        self.replay_header.as_ref()
    }

    pub(crate) fn mismatch_status(&self) -> StatusCode {
        self.mismatch
    }

    pub(crate) fn in_flight_status(&self) -> StatusCode {
        self.in_flight
    }

    pub(crate) fn missing_status(&self) -> StatusCode {
        self.missing
    }

    pub(crate) fn documentation_url(&self) -> Option<&str> {
        self.documentation.as_deref()
    }
}

fn header_name(name: &str) -> HeaderName {
    name.parse()
        .unwrap_or_else(|_| panic!("`{name}` is not a header name"))
}

impl fmt::Debug for Dialect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Dialect")
            .field("key_header", &self.key_header)
            .field("key_len", &self.key_len)
            .field("key_rule", &self.key_rule.is_some())
            .field("key_syntax", &self.key_syntax)
            .field("replay_header", &self.replay_header)
            .field("mismatch", &self.mismatch)
            .field("in_flight", &self.in_flight)
            .field("missing", &self.missing)
            .field("documentation", &self.documentation)
            .finish()
    }
}

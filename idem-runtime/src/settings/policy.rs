//! The settings of one endpoint: all options of `#[idempotent(…)]`, built at compile time.

use std::time::Duration;

use http::StatusCode;

/// The settings of one endpoint.
///
/// The attribute builds one policy as a `static` for each handler. Nothing is computed at run time.
#[derive(Debug)]
#[expect(clippy::struct_excessive_bools, reason = "one for each flag")]
pub struct Policy {
    pub(crate) endpoint: &'static str,
    pub(crate) ttl: Duration,
    pub(crate) required: bool,
    pub(crate) key_source: KeySource,
    pub(crate) record: Statuses,
    pub(crate) record_rejections: bool,
    pub(crate) records_body: bool,
    pub(crate) in_flight: InFlight,
    pub(crate) on_unknown: OnUnknown,
    pub(crate) unknown: Statuses,
    /// `None` for that of the service.
    pub(crate) max_run: Option<Duration>,
    pub(crate) fingerprint: FingerprintMode,
    pub(crate) transactional: bool,
}

/// What names the key of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum KeySource {
    /// The key header of the service.
    Service,
    /// `key = …` of the endpoint.
    Endpoint,
    /// `key = …` of an endpoint that has an `IdempotencyKey` as argument, and so never runs without a key.
    EndpointArgument,
}

/// How a duplicate is handled while the first request still runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum InFlight {
    Reject,
    Wait(Duration),
}

/// How a key is handled when the outcome of its last attempt is unknown.
///
/// The outcome is unknown if the handler panicked, its process died, its lease lapsed, it ran longer than `max_run`,
/// or its response says so.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnUnknown {
    /// The next request with the same key and fingerprint runs the handler again.
    Rerun,
    /// No request runs the handler until an operator resolves the key or its `ttl` ends.
    Hold,
}

/// The parts of the body that distinguish a retry from a reused key.
#[derive(Clone, Copy, Debug)]
pub enum FingerprintMode {
    /// All bytes are compared.
    Body,
    /// The JSON values are compared, without the order of members and white space.
    Json(WriteJson),
    /// The JSON values at these pointers (RFC 6901) are compared.
    JsonPointers(WriteJson, &'static [&'static str]),
    /// The body is not compared.
    WithoutBody,
}

impl FingerprintMode {
    pub(crate) const fn is_without_body(self) -> bool {
        matches!(self, Self::WithoutBody)
    }
}

/// Writes the canonical form of a JSON body, or of the values at some pointers in it. Returns `false` if
/// the body has no canonical form.
///
/// A function pointer in the policy, so that only a program that compares JSON contains its code.
pub(crate) type WriteJson =
    fn(body: &[u8], pointers: Option<&[&str]>, out: &mut dyn FnMut(&[u8])) -> bool;

impl Policy {
    /// Returns the defaults of the attribute for the handler called `endpoint`.
    #[must_use]
    pub const fn new(endpoint: &'static str) -> Self {
        Self {
            endpoint,
            ttl: Duration::from_secs(24 * 60 * 60),
            required: false,
            key_source: KeySource::Service,
            record: Statuses::DEFAULT,
            record_rejections: false,
            records_body: true,
            in_flight: InFlight::Reject,
            on_unknown: OnUnknown::Rerun,
            unknown: Statuses::NONE,
            max_run: None,
            fingerprint: FingerprintMode::Body,
            transactional: false,
        }
    }

    /// Implements `ttl = "…"`, in milliseconds.
    #[must_use]
    pub const fn ttl_millis(mut self, millis: u64) -> Self {
        self.ttl = Duration::from_millis(millis);
        self
    }

    /// Implements `required`.
    #[must_use]
    pub const fn required(mut self) -> Self {
        self.required = true;
        self
    }

    /// Implements `key = …`. The key comes from a call of the generated code, and not from the header of the
    /// service.
    #[must_use]
    pub const fn own_key(mut self) -> Self {
        self.key_source = KeySource::Endpoint;
        self
    }

    /// Implements `key = …` for a handler with an `IdempotencyKey`, which never runs without a key.
    #[must_use]
    pub const fn own_key_taken(mut self) -> Self {
        self.key_source = KeySource::EndpointArgument;
        self
    }

    /// Implements `record = […]` and `record = all`.
    #[must_use]
    pub const fn record(mut self, statuses: Statuses) -> Self {
        self.record = statuses;
        self
    }

    /// Implements `record_rejections`.
    #[must_use]
    pub const fn record_rejections(mut self) -> Self {
        self.record_rejections = true;
        self
    }

    /// Implements `record_body = none`.
    #[must_use]
    pub const fn record_no_body(mut self) -> Self {
        self.records_body = false;
        self
    }

    /// Implements `in_flight = wait("…")`, in milliseconds.
    #[must_use]
    pub const fn wait_millis(mut self, millis: u64) -> Self {
        self.in_flight = InFlight::Wait(Duration::from_millis(millis));
        self
    }

    /// Implements `on_unknown = hold`.
    #[must_use]
    pub const fn hold_unknown(mut self) -> Self {
        self.on_unknown = OnUnknown::Hold;
        self
    }

    /// Implements `transactional`.
    #[must_use]
    pub const fn transactional(mut self) -> Self {
        self.transactional = true;
        self
    }

    /// Implements `unknown = […]`.
    #[must_use]
    pub const fn unknown(mut self, statuses: Statuses) -> Self {
        self.unknown = statuses;
        self
    }

    /// Implements `max_run = "…"`, in milliseconds.
    #[must_use]
    pub const fn max_run_millis(mut self, millis: u64) -> Self {
        self.max_run = Some(Duration::from_millis(millis));
        self
    }

    /// Implements `fingerprint = …`.
    #[must_use]
    pub const fn fingerprint(mut self, mode: FingerprintMode) -> Self {
        self.fingerprint = mode;
        self
    }
}

/// A set of final status codes: 200 to 999.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Statuses([u64; 16]);

impl Statuses {
    /// No status.
    pub const NONE: Self = Self([0; 16]);

    /// 2xx, 3xx and 4xx, without the statuses that say nothing about the operation: 401, 403, 408,
    /// 425 and 429.
    pub const DEFAULT: Self = Self::NONE
        .class(2)
        .class(3)
        .class(4)
        .without(401)
        .without(403)
        .without(408)
        .without(425)
        .without(429);

    /// Every final status. Interim 1xx statuses are excluded.
    pub const ALL: Self = {
        let mut all = Self::NONE;
        let mut class = 2;
        while class <= 9 {
            all = all.class(class);
            class += 1;
        }
        all
    };

    /// Adds a whole class, such as 4 for 400 to 499.
    #[must_use]
    pub const fn class(mut self, class: u16) -> Self {
        let mut code = class * 100;
        while code < class * 100 + 100 {
            self = self.code(code);
            code += 1;
        }
        self
    }

    /// Adds one status.
    #[must_use]
    pub const fn code(mut self, code: u16) -> Self {
        self.0[(code / 64) as usize] |= 1 << (code % 64);
        self
    }

    /// Removes one status.
    #[must_use]
    pub const fn without(mut self, code: u16) -> Self {
        self.0[(code / 64) as usize] &= !(1 << (code % 64));
        self
    }

    pub(crate) const fn contains(&self, status: StatusCode) -> bool {
        let code = status.as_u16();
        code >= 200 && self.0[(code / 64) as usize] & (1 << (code % 64)) != 0
    }
}

impl std::fmt::Debug for Statuses {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let codes = (200..1000).filter(|code| self.0[code / 64] & (1 << (code % 64)) != 0);
        f.debug_set().entries(codes).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(code: u16) -> StatusCode {
        StatusCode::from_u16(code).expect("a status")
    }

    #[test]
    fn the_default_excludes_statuses_that_say_nothing_about_the_operation() {
        for code in [200, 201, 204, 303, 400, 402, 404, 409, 410, 422, 499] {
            assert!(Statuses::DEFAULT.contains(status(code)), "{code}");
        }
        for code in [100, 101, 199, 401, 403, 408, 425, 429, 500, 503, 600] {
            assert!(!Statuses::DEFAULT.contains(status(code)), "{code}");
        }
    }

    #[test]
    fn an_explicit_class_contains_all_its_statuses() {
        let statuses = Statuses::NONE.class(4).code(503);
        for code in [400, 401, 429, 499, 503] {
            assert!(statuses.contains(status(code)), "{code}");
        }
        for code in [200, 399, 500, 502, 504] {
            assert!(!statuses.contains(status(code)), "{code}");
        }
    }

    #[test]
    fn all_contains_every_final_status_and_no_interim_status() {
        for code in 200..1000 {
            assert!(Statuses::ALL.contains(status(code)), "{code}");
        }
        assert!(!Statuses::ALL.contains(StatusCode::SWITCHING_PROTOCOLS));
    }
}

//! What a check of the engine behind a store has found.

use std::borrow::Cow;

/// One result of [`Store::diagnose`](super::Store::diagnose).
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Finding {
    /// How bad the result is.
    pub severity: Severity,
    /// The subject of the check, such as `eviction` or `version`. It is part of the public API, because programs compare it.
    pub subject: &'static str,
    /// The result in words, and what to do if the result is not good.
    pub message: Cow<'static, str>,
}

/// How bad a [`Finding`] is. A later variant is worse.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Severity {
    /// The engine is set up well.
    Good,
    /// The engine is fit, but records may be lost in a case that the message names. Or the store lacks the right for this
    /// check.
    Warning,
    /// The engine is not fit: a retry may run a handler a second time.
    Bad,
}

impl Finding {
    /// A good result.
    #[must_use]
    pub fn good(subject: &'static str, message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(Severity::Good, subject, message)
    }

    /// A result that an operator should know.
    #[must_use]
    pub fn warning(subject: &'static str, message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(Severity::Warning, subject, message)
    }

    /// A result that an operator must act on.
    #[must_use]
    pub fn bad(subject: &'static str, message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(Severity::Bad, subject, message)
    }

    /// How full the store is. From 80 % on, an operator should act.
    pub(crate) fn fill(bytes: u64, max_bytes: Option<u64>) -> Self {
        let Some(max_bytes) = max_bytes.filter(|max_bytes| *max_bytes > 0) else {
            return Self::good("room", format!("{bytes} bytes are used; there is no limit"));
        };
        let message = format!("{bytes} of {max_bytes} bytes are used");
        if u128::from(bytes) * 10 < u128::from(max_bytes) * 8 {
            Self::good("room", message)
        } else {
            let what_to_do = "a full store refuses new keys; raise the limit, or shorten the `ttl`";
            Self::warning("room", format!("{message}; {what_to_do}"))
        }
    }

    fn new(
        severity: Severity,
        subject: &'static str,
        message: impl Into<Cow<'static, str>>,
    ) -> Self {
        Self {
            severity,
            subject,
            message: message.into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_store_that_is_four_fifths_full_is_a_warning() {
        for (bytes, max_bytes, severity) in [
            (0, Some(100), Severity::Good),
            (79, Some(100), Severity::Good),
            (80, Some(100), Severity::Warning),
            (u64::MAX, Some(u64::MAX), Severity::Warning),
            (u64::MAX, None, Severity::Good),
            (7, Some(0), Severity::Good),
        ] {
            let finding = Finding::fill(bytes, max_bytes);
            assert_eq!(finding.severity, severity, "{bytes} of {max_bytes:?}");
        }
    }
}

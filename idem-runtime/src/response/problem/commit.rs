//! The problems of a handler that could not commit its response.

use http::StatusCode;

use super::Problem;
use super::kind::Kind;
use crate::request::record_id::RecordId;

/// The first commit of the attempt took effect.
const ALREADY_RECORDED: &str = "a response was committed before this error; retry the request with the same key to get that response";

impl Problem {
    pub(crate) fn overtaken() -> Self {
        Self::new(
            Kind::Overtaken,
            "this request had no effect, because another attempt has taken over; retry it with the same key to get the response of that attempt",
        )
        .retry_after_seconds(1)
    }

    /// The first request may retry at once, and an unknown commit is often found a moment later.
    pub(crate) fn commit_unknown() -> Self {
        Self::new(
            Kind::OutcomeUnknown,
            "the database did not confirm the commit; retry the request with the same key",
        )
        .with_status(StatusCode::SERVICE_UNAVAILABLE)
        .retry_after_seconds(1)
    }

    pub(crate) fn commit_failed(is_transient: bool) -> Self {
        let problem = Self::new(
            Kind::CommitFailed,
            "the request had no effect; retry it with the same key",
        );
        if !is_transient {
            return problem;
        }
        let problem = problem.with_status(StatusCode::SERVICE_UNAVAILABLE);
        problem.retry_after_seconds(1)
    }

    pub(crate) fn not_transactional() -> Self {
        Self::new(
            Kind::NotTransactional,
            "the request had no effect, because the service cannot commit it together with its response",
        )
    }

    pub(crate) fn already_recorded() -> Self {
        Self::new(Kind::CommitFailed, ALREADY_RECORDED)
    }

    /// Names the record in a problem of an attempt. An error after a commit does not undo the commit.
    pub(crate) fn of_attempt(&mut self, id: RecordId, has_committed: bool) {
        self.record_id.get_or_insert(id);
        if has_committed && self.kind == Kind::CommitFailed {
            self.detail = ALREADY_RECORDED.into();
        }
    }
}

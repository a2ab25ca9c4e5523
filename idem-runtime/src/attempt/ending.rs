//! Decides how a response ends its attempt.

use axum::response::Response;

use crate::response::do_not_record::DoNotRecord;
use crate::response::outcome_unknown::OutcomeUnknown;
use crate::settings::policy::Policy;

/// How a response ends its attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ending {
    /// The response is recorded.
    Recorded,
    /// The response is not recorded, and the key is free.
    Released,
    /// The response is not recorded, and the key is unknown.
    Unknown,
}

impl Ending {
    /// The ending of an attempt whose handler returned `response`. Takes the markers of this library out
    /// of the extensions of the response.
    pub(crate) fn of(policy: &Policy, response: &mut Response) -> Self {
        let status = response.status();
        let extensions = response.extensions_mut();
        let is_unknown = extensions.remove::<OutcomeUnknown>().is_some();
        let is_opted_out = extensions.remove::<DoNotRecord>().is_some();
        if is_unknown || policy.unknown.contains(status) {
            Self::Unknown
        } else if is_opted_out || !policy.record.contains(status) {
            Self::Released
        } else {
            Self::Recorded
        }
    }

    /// Whether the response will be recorded. Leaves the markers in the response.
    pub(crate) fn is_recorded(policy: &Policy, response: &Response) -> bool {
        let (status, extensions) = (response.status(), response.extensions());
        policy.record.contains(status)
            && !policy.unknown.contains(status)
            && extensions.get::<DoNotRecord>().is_none()
            && extensions.get::<OutcomeUnknown>().is_none()
    }
}

#[cfg(test)]
mod tests {
    use axum::response::IntoResponse;
    use http::StatusCode;

    use super::*;
    use crate::settings::policy::Statuses;

    fn of(policy: &Policy, response: impl IntoResponse) -> Ending {
        Ending::of(policy, &mut response.into_response())
    }

    #[test]
    fn an_unknown_outcome_wins_over_record_and_over_do_not_record() {
        let policy = Policy::new("test").record(Statuses::ALL);
        assert_eq!(of(&policy, StatusCode::OK), Ending::Recorded);
        assert_eq!(of(&policy, (DoNotRecord, ())), Ending::Released);
        assert_eq!(of(&policy, (OutcomeUnknown, ())), Ending::Unknown);
        assert_eq!(
            of(&policy, (DoNotRecord, OutcomeUnknown, ())),
            Ending::Unknown
        );
        assert_eq!(
            of(&policy, (OutcomeUnknown, DoNotRecord, ())),
            Ending::Unknown
        );
    }

    #[test]
    fn an_unknown_status_wins_over_record_and_over_do_not_record() {
        let unknown = Statuses::NONE.class(5).without(503).code(404);
        let policy = Policy::new("test").record(Statuses::ALL).unknown(unknown);
        for (status, ending) in [
            (StatusCode::OK, Ending::Recorded),
            (StatusCode::SERVICE_UNAVAILABLE, Ending::Recorded),
            (StatusCode::BAD_GATEWAY, Ending::Unknown),
            (StatusCode::NOT_FOUND, Ending::Unknown),
        ] {
            assert_eq!(of(&policy, status), ending, "{status}");
        }
        let opted_out = (StatusCode::BAD_GATEWAY, DoNotRecord, ());
        assert_eq!(of(&policy, opted_out), Ending::Unknown);
    }
}

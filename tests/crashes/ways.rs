//! The paths of a request through the engine, with the permitted outcomes of each path.

use axum_idem::testing::{Fault, Operation};

/// What happened to the key before the request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Before {
    Nothing,
    /// A request with this body got its response.
    Answered(&'static str),
    /// Another request runs and finishes after a while.
    Runs,
    /// Another request was cut off after its effect.
    CutOff,
}

/// One path of a request.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Way {
    pub(crate) name: &'static str,
    pub(crate) path: &'static str,
    pub(crate) before: Before,
    pub(crate) panics: bool,
    pub(crate) faults: &'static [(Operation, Fault)],
    /// The status of the response when the request is not cut off.
    pub(crate) told: u16,
    /// The permitted statuses of a retry, with the problem code of a refusal.
    pub(crate) retried: &'static [(u16, &'static str)],
    /// The highest permitted number of effects after one retry: first for a living process, then for a
    /// killed process.
    pub(crate) effects: [usize; 2],
}

pub(crate) const BODY: &str = "12345";

const FIRST_SIGHT: Way = Way {
    name: "first request",
    path: "/order",
    before: Before::Nothing,
    panics: false,
    faults: &[],
    told: 201,
    retried: &[(201, "")],
    effects: [1, 2],
};

const UNKNOWN: (u16, &str) = (409, "idempotency_outcome_unknown");

const TIMEOUT: (u16, &str) = (504, "idempotency_run_timeout");

pub(crate) const WAYS: [Way; 26] = [
    FIRST_SIGHT,
    Way {
        name: "first sight, behind a layer",
        path: "/commits",
        ..FIRST_SIGHT
    },
    Way {
        name: "first sight, behind a layer, held when unknown",
        path: "/commits-held",
        retried: &[(201, ""), UNKNOWN],
        effects: [1, 1],
        ..FIRST_SIGHT
    },
    Way {
        name: "replay, behind a layer",
        path: "/commits",
        before: Before::Answered(BODY),
        effects: [1, 1],
        ..FIRST_SIGHT
    },
    Way {
        name: "a layer that fails",
        path: "/commit-fails",
        told: 500,
        retried: &[(500, "")],
        effects: [2, 2],
        ..FIRST_SIGHT
    },
    Way {
        name: "first request, `on_unknown = hold`",
        path: "/held",
        retried: &[(201, ""), UNKNOWN],
        effects: [1, 1],
        ..FIRST_SIGHT
    },
    Way {
        name: "replay",
        before: Before::Answered(BODY),
        effects: [1, 1],
        ..FIRST_SIGHT
    },
    Way {
        name: "mismatch",
        told: 409,
        before: Before::Answered("other"),
        retried: &[(409, "idempotency_key_reused")],
        effects: [1, 1],
        ..FIRST_SIGHT
    },
    Way {
        name: "in flight",
        told: 409,
        before: Before::Runs,
        ..FIRST_SIGHT
    },
    Way {
        name: "in flight, with a waiter",
        path: "/wait",
        before: Before::Runs,
        ..FIRST_SIGHT
    },
    Way {
        name: "takeover",
        before: Before::CutOff,
        effects: [2, 3],
        ..FIRST_SIGHT
    },
    Way {
        name: "unknown outcome, `on_unknown = hold`",
        told: 409,
        path: "/held",
        before: Before::CutOff,
        retried: &[UNKNOWN],
        effects: [1, 1],
        ..FIRST_SIGHT
    },
    Way {
        name: "error response",
        told: 500,
        path: "/fails",
        retried: &[(500, "")],
        effects: [2, 2],
        ..FIRST_SIGHT
    },
    Way {
        name: "panic",
        told: 500,
        panics: true,
        retried: &[(201, ""), (500, "")],
        effects: [2, 2],
        ..FIRST_SIGHT
    },
    Way {
        name: "panic, `on_unknown = hold`",
        told: 500,
        path: "/held",
        panics: true,
        retried: &[UNKNOWN, (500, "")],
        effects: [1, 1],
        ..FIRST_SIGHT
    },
    Way {
        name: "do not record",
        told: 202,
        path: "/opts-out",
        retried: &[(202, "")],
        effects: [2, 2],
        ..FIRST_SIGHT
    },
    Way {
        name: "response too long to record",
        told: 200,
        path: "/streams",
        retried: &[(200, ""), (409, "idempotency_response_not_kept")],
        ..FIRST_SIGHT
    },
    Way {
        name: "slow response",
        told: 200,
        path: "/slow",
        retried: &[(200, ""), (409, "idempotency_response_not_kept")],
        ..FIRST_SIGHT
    },
    Way {
        name: "streamed request",
        path: "/uploads",
        ..FIRST_SIGHT
    },
    Way {
        name: "unknown outcome",
        told: 202,
        path: "/unknown",
        retried: &[(202, "")],
        effects: [2, 2],
        ..FIRST_SIGHT
    },
    Way {
        name: "unknown status, held",
        told: 202,
        path: "/unknown-held",
        retried: &[(202, ""), UNKNOWN],
        effects: [1, 1],
        ..FIRST_SIGHT
    },
    Way {
        name: "hung handler",
        told: 504,
        path: "/hangs",
        retried: &[TIMEOUT],
        effects: [2, 2],
        ..FIRST_SIGHT
    },
    Way {
        name: "hung handler, held when unknown",
        told: 504,
        path: "/hangs-held",
        retried: &[TIMEOUT, UNKNOWN],
        effects: [1, 1],
        ..FIRST_SIGHT
    },
    Way {
        name: "hung body extractor",
        told: 504,
        path: "/hangs-early",
        retried: &[TIMEOUT, UNKNOWN],
        effects: [0, 0],
        ..FIRST_SIGHT
    },
    Way {
        name: "rejection",
        told: 422,
        path: "/rejects",
        retried: &[(422, "")],
        effects: [0, 0],
        ..FIRST_SIGHT
    },
    Way {
        name: "recorded rejection",
        told: 422,
        path: "/keeps-rejections",
        retried: &[(422, "")],
        effects: [0, 0],
        ..FIRST_SIGHT
    },
];

/// The paths on which the store fails.
pub(crate) const FAULTY_WAYS: [Way; 11] = [
    Way {
        name: "store down",
        told: 503,
        faults: &[(Operation::Claim, Fault::ErrBefore); 3],
        ..FIRST_SIGHT
    },
    Way {
        name: "reply to the claim lost",
        faults: &[(Operation::Claim, Fault::ErrAfter)],
        ..FIRST_SIGHT
    },
    Way {
        name: "every reply to the claim lost",
        told: 503,
        faults: &[(Operation::Claim, Fault::ErrAfter); 3],
        ..FIRST_SIGHT
    },
    Way {
        name: "reply to the claim never arrives",
        faults: &[(Operation::Claim, Fault::DropReply)],
        ..FIRST_SIGHT
    },
    Way {
        name: "record fails",
        faults: &[(Operation::Complete, Fault::ErrBefore); 2],
        ..FIRST_SIGHT
    },
    Way {
        name: "reply to the record lost",
        faults: &[(Operation::Complete, Fault::ErrAfter)],
        ..FIRST_SIGHT
    },
    Way {
        name: "reply to the record never arrives",
        faults: &[(Operation::Complete, Fault::DropReply)],
        ..FIRST_SIGHT
    },
    Way {
        name: "release fails",
        told: 500,
        path: "/fails",
        faults: &[(Operation::Release, Fault::ErrBefore)],
        retried: &[(500, "")],
        effects: [2, 2],
        ..FIRST_SIGHT
    },
    Way {
        name: "abandoning an unknown outcome fails",
        told: 202,
        path: "/unknown-held",
        faults: &[(Operation::Abandon, Fault::ErrBefore)],
        retried: &[(202, ""), UNKNOWN],
        effects: [1, 1],
        ..FIRST_SIGHT
    },
    Way {
        name: "the reply to abandoning a hung handler never comes",
        told: 504,
        path: "/hangs-held",
        faults: &[(Operation::Abandon, Fault::DropReply)],
        retried: &[TIMEOUT, UNKNOWN],
        effects: [1, 1],
        ..FIRST_SIGHT
    },
    Way {
        name: "abandon fails",
        told: 500,
        panics: true,
        faults: &[(Operation::Abandon, Fault::ErrBefore)],
        retried: &[(201, ""), (500, "")],
        effects: [2, 2],
        ..FIRST_SIGHT
    },
];

//! The branches of a request's way, and what may be found behind each.

use axum_idem::testing::{Fault, Operation};

/// What was before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Before {
    Nothing,
    /// A request with this body was answered.
    Answered(&'static str),
    /// Another one runs, and goes on after a while.
    Runs,
    /// Another one was cut off behind its effect.
    CutOff,
}

/// One branch.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Way {
    pub(crate) name: &'static str,
    pub(crate) path: &'static str,
    pub(crate) before: Before,
    pub(crate) panics: bool,
    pub(crate) faults: &'static [(Operation, Fault)],
    /// The status of the answer where the request is not cut off.
    pub(crate) told: u16,
    /// The status of a retry, and the code where it is a refusal.
    pub(crate) retried: &'static [(u16, &'static str)],
    /// How many effects there are behind one retry, at most: when the process lives, and when it
    /// dies.
    pub(crate) effects: [usize; 2],
}

pub(crate) const BODY: &str = "12345";

const FIRST_SIGHT: Way = Way {
    name: "first sight",
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

pub(crate) const WAYS: [Way; 22] = [
    FIRST_SIGHT,
    Way {
        name: "first sight, held when unknown",
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
        name: "in flight, waited for",
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
        name: "unknown and held",
        told: 409,
        path: "/held",
        before: Before::CutOff,
        retried: &[UNKNOWN],
        effects: [1, 1],
        ..FIRST_SIGHT
    },
    Way {
        name: "error",
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
        name: "panic, held when unknown",
        told: 500,
        path: "/held",
        panics: true,
        retried: &[UNKNOWN, (500, "")],
        effects: [1, 1],
        ..FIRST_SIGHT
    },
    Way {
        name: "opt-out",
        told: 202,
        path: "/opts-out",
        retried: &[(202, "")],
        effects: [2, 2],
        ..FIRST_SIGHT
    },
    Way {
        name: "not kept",
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
        name: "rejection that is kept",
        told: 422,
        path: "/keeps-rejections",
        retried: &[(422, "")],
        effects: [0, 0],
        ..FIRST_SIGHT
    },
];

/// The ways on which the store fails.
pub(crate) const FAULTY_WAYS: [Way; 11] = [
    Way {
        name: "store down",
        told: 503,
        faults: &[(Operation::Claim, Fault::ErrBefore); 3],
        ..FIRST_SIGHT
    },
    Way {
        name: "answer to the claim lost",
        faults: &[(Operation::Claim, Fault::ErrAfter)],
        ..FIRST_SIGHT
    },
    Way {
        name: "every answer to the claim lost",
        told: 503,
        faults: &[(Operation::Claim, Fault::ErrAfter); 3],
        ..FIRST_SIGHT
    },
    Way {
        name: "answer to the claim never comes",
        faults: &[(Operation::Claim, Fault::DropReply)],
        ..FIRST_SIGHT
    },
    Way {
        name: "record fails",
        faults: &[(Operation::Complete, Fault::ErrBefore); 2],
        ..FIRST_SIGHT
    },
    Way {
        name: "answer to the record lost",
        faults: &[(Operation::Complete, Fault::ErrAfter)],
        ..FIRST_SIGHT
    },
    Way {
        name: "answer to the record never comes",
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
        name: "abandoning fails",
        told: 500,
        panics: true,
        faults: &[(Operation::Abandon, Fault::ErrBefore)],
        retried: &[(201, ""), (500, "")],
        effects: [2, 2],
        ..FIRST_SIGHT
    },
];

//! The protocol between a service and its store: one question and one reply per connection.

use std::time::Duration;

use axum_idem::store::{Claim, Claimed, Holder, OnUnknown, Owner, Record, Settled};
use axum_idem::{Fingerprint, RecordId};
use serde::{Deserialize, Serialize};

#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Question {
    Claim {
        id: [u8; 32],
        fingerprint: [u8; 32],
        owner: [u8; 16],
        lease: Duration,
        retention: Duration,
        rerun: bool,
    },
    Renew(Who, Duration),
    Complete(Who, Vec<u8>, Duration),
    Release(Who),
    Abandon(Who),
}

#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) struct Who {
    id: [u8; 32],
    owner: [u8; 16],
    fence: u64,
}

#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Answer {
    Fresh(u64, u32),
    InFlight([u8; 32], Duration),
    Recorded(Vec<u8>, Duration),
    Unknown([u8; 32]),
    Full,
    Done,
    Lost,
}

impl From<Holder> for Who {
    fn from(holder: Holder) -> Self {
        Self {
            id: *holder.id.as_bytes(),
            owner: *holder.owner.as_bytes(),
            fence: holder.fence,
        }
    }
}

impl From<Who> for Holder {
    fn from(who: Who) -> Self {
        Self {
            id: RecordId::from_bytes(who.id),
            owner: Owner::from_bytes(who.owner),
            fence: who.fence,
        }
    }
}

impl Question {
    pub(crate) fn claim(claim: &Claim) -> Self {
        Self::Claim {
            id: *claim.id.as_bytes(),
            fingerprint: *claim.fingerprint.as_bytes(),
            owner: *claim.owner.as_bytes(),
            lease: claim.lease,
            retention: claim.retention,
            rerun: claim.on_unknown == OnUnknown::Rerun,
        }
    }
}

impl Answer {
    pub(crate) fn of_claim(claimed: Claimed) -> Self {
        match claimed {
            Claimed::Fresh { fence, attempt } => Self::Fresh(fence, attempt),
            Claimed::InFlight {
                fingerprint,
                lease_left,
                ..
            } => Self::InFlight(*fingerprint.as_bytes(), lease_left),
            Claimed::Recorded { record, expires_in } => {
                Self::Recorded(record.as_bytes().to_vec(), expires_in)
            }
            Claimed::Unknown { fingerprint } => Self::Unknown(*fingerprint.as_bytes()),
            _ => Self::Full,
        }
    }

    pub(crate) fn of_settling(settled: Settled) -> Self {
        match settled {
            Settled::Done => Self::Done,
            Settled::Lost => Self::Lost,
        }
    }

    pub(crate) fn claimed(self) -> Option<Claimed> {
        Some(match self {
            Self::Fresh(fence, attempt) => Claimed::Fresh { fence, attempt },
            Self::InFlight(fingerprint, lease_left) => Claimed::InFlight {
                fingerprint: Fingerprint::from_bytes(fingerprint),
                lease_left,
                changed: None,
            },
            Self::Recorded(record, expires_in) => Claimed::Recorded {
                record: Record::decode(record.into()).ok()?,
                expires_in,
            },
            Self::Unknown(fingerprint) => Claimed::Unknown {
                fingerprint: Fingerprint::from_bytes(fingerprint),
            },
            Self::Full => Claimed::Full,
            Self::Done | Self::Lost => return None,
        })
    }

    pub(crate) fn settled(self) -> Option<Settled> {
        match self {
            Self::Done => Some(Settled::Done),
            Self::Lost => Some(Settled::Lost),
            _ => None,
        }
    }
}

//! The servers that are in charge, as Sentinels or the nodes of a cluster name them.

use super::slots::LAST_SLOT;

/// The servers that are in charge, and the replicas that may be promoted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Located {
    pub(super) shards: Vec<Shard>,
    pub(super) replicas: Vec<Place>,
}

/// The slots from `first` to `last`, and where their primary is.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Shard {
    pub(super) first: u16,
    pub(super) last: u16,
    pub(super) primary: Place,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Place {
    pub(super) host: String,
    pub(super) port: u16,
}

impl Located {
    pub(super) fn one(primary: Place, replicas: Vec<Place>) -> Self {
        let shard = Shard {
            first: 0,
            last: LAST_SLOT,
            primary,
        };
        Self {
            shards: vec![shard],
            replicas,
        }
    }
}

//! The primaries and replicas, as Sentinels or cluster nodes report them.

use super::slots::LAST_SLOT;

/// The primaries, and the replicas that may be promoted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Located {
    pub(super) shards: Vec<Shard>,
    pub(super) replicas: Vec<Place>,
}

/// The slots from `first` to `last`, and the place of their primary.
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
    /// One primary for all slots. Sorts the replicas, because each Sentinel has its own order, and
    /// a different order is not a change.
    pub(super) fn one(primary: Place, mut replicas: Vec<Place>) -> Self {
        replicas.sort();
        replicas.dedup();
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_order_of_the_replicas_is_no_change() {
        let place = |port| Place {
            host: "10.0.0.1".to_owned(),
            port,
        };
        let one = Located::one(place(1), vec![place(2), place(3)]);
        let same = Located::one(place(1), vec![place(3), place(2), place(3)]);
        assert_eq!(one, same);
        assert_ne!(one, Located::one(place(1), vec![place(2)]));
    }
}

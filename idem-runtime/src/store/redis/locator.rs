//! Finds the servers that are in charge: one address, the primary that Sentinels name, or the nodes of
//! a cluster.

use super::access::Access;
use super::cluster::Nodes;
use super::sentinel::Sentinels;

/// Who knows which servers are in charge.
pub(super) enum Locator {
    Fixed(Access),
    Sentinel(Sentinels),
    Cluster(Nodes),
}

impl Locator {
    /// The access that the servers in charge are reached like.
    pub(super) fn like(&self) -> &Access {
        match self {
            Self::Fixed(access) => access,
            Self::Sentinel(sentinels) => &sentinels.primary,
            Self::Cluster(nodes) => nodes.like(),
        }
    }
}

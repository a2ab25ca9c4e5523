//! Finds the primaries: at one fixed address, through Sentinels, or through the nodes of a cluster.

use super::access::Access;
use super::cluster::Nodes;
use super::sentinel::Sentinels;

/// The source that knows the primaries.
pub(super) enum Locator {
    Fixed(Access),
    Sentinel(Sentinels),
    Cluster(Nodes),
}

impl Locator {
    /// The access settings that apply to all primaries.
    pub(super) fn like(&self) -> &Access {
        match self {
            Self::Fixed(access) => access,
            Self::Sentinel(sentinels) => &sentinels.primary,
            Self::Cluster(nodes) => nodes.like(),
        }
    }
}

//! What `docs/production.md` says about deploys, backups, poolers, timeouts and erasure.

mod backups;
mod deploys;
mod erasure;
mod pooler;
mod timeouts;

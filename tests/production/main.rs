//! What `docs/production.md` says about deploys, backups, poolers, rights, timeouts and erasure.

mod backups;
mod deploys;
mod erasure;
mod pooler;
mod rights;
mod timeouts;

//! The store that the variable `STORE` names.

use std::error::Error;
use std::sync::Arc;

#[cfg(feature = "postgres")]
use axum_idem::store::PostgresStore;
#[cfg(feature = "redis")]
use axum_idem::store::RedisStore;
#[cfg(feature = "sqlite")]
use axum_idem::store::SqliteStore;
use axum_idem::store::{MemoryStore, Store};

/// `STORE=sqlite://trades.db`, `STORE=redis://…` and `STORE=postgres://…` each need the feature of the same name.
/// Without `STORE`, the records are in memory.
#[cfg_attr(
    not(any(feature = "postgres", feature = "redis", feature = "sqlite")),
    expect(clippy::unused_async, reason = "with a feature, it opens a store")
)]
pub(crate) async fn from_environment() -> Result<Arc<dyn Store>, Box<dyn Error>> {
    let Ok(address) = std::env::var("STORE") else {
        return Ok(Arc::new(MemoryStore::default()));
    };
    match address.split_once("://") {
        #[cfg(feature = "sqlite")]
        Some(("sqlite", path)) => Ok(Arc::new(SqliteStore::open(path).await?)),
        #[cfg(feature = "redis")]
        Some(("redis", _)) => Ok(Arc::new(RedisStore::connect(address).await?)),
        #[cfg(feature = "postgres")]
        Some(("postgres", _)) => Ok(Arc::new(PostgresStore::connect(address).await?)),
        Some((feature, _)) if ["sqlite", "redis", "postgres"].contains(&feature) => {
            Err(format!("run the example with `--features {feature}`").into())
        }
        _ => Err(
            "set STORE to `sqlite://` and the path of a file, to `redis://…` or to `postgres://…`"
                .into(),
        ),
    }
}

//! Opens the store that the arguments name.

use std::path::Path;
use std::sync::Arc;

use axum_idem::Idempotency;
use axum_idem::store::{Keys, PostgresStore, RedisStore, Sealed, SqliteStore, Store};

use crate::arguments::Shared;
use crate::failure::Failure;
use crate::redis_address::{self, Sentinel};
use crate::sealing;

/// A store, and the operations on it.
pub(crate) struct Opened {
    pub(crate) store: Arc<dyn Store>,
    pub(crate) idem: Idempotency,
    /// The operations with the primary sealing key alone. `None` without sealing keys.
    pub(crate) primary: Option<Idempotency>,
    /// `--read-unsealed`.
    pub(crate) reads_unsealed: bool,
}

/// Opens the store. Creates nothing in it, and starts no sweeper.
pub(crate) async fn open(shared: &Shared) -> Result<Opened, Failure> {
    let url = shared.store.as_deref().ok_or_else(|| {
        Failure::Usage(
            "name the store with IDEM_STORE or `--store`, such as `sqlite://orders.db`".into(),
        )
    })?;
    // A mistake in a secret is reported before the store is opened.
    let keys = sealing::keys(shared)?;
    let id_secret = sealing::id_secret(shared)?;
    if shared.read_unsealed && keys.is_none() {
        return Err(Failure::Usage(
            "`--read-unsealed` needs the sealing keys".into(),
        ));
    }
    let (scheme, rest) = url.split_once("://").ok_or_else(unknown_scheme)?;
    let store: Arc<dyn Store> = match scheme {
        "redis" | "rediss" | "redis+unix" | "redis+cluster" | "rediss+cluster"
        | "redis+sentinel" | "rediss+sentinel" => {
            without("--table", shared.table.as_ref(), "Redis")?;
            without("--schema", shared.schema.as_ref(), "Redis")?;
            Arc::new(redis(shared, scheme, rest, url).await?)
        }
        "postgres" | "postgresql" => {
            without("--prefix", shared.prefix.as_ref(), "PostgreSQL")?;
            Arc::new(postgres(shared, url).await?)
        }
        "sqlite" => {
            without("--prefix", shared.prefix.as_ref(), "SQLite")?;
            without("--schema", shared.schema.as_ref(), "SQLite")?;
            Arc::new(sqlite(shared, rest).await?)
        }
        _ => return Err(unknown_scheme()),
    };
    let (store, primary) = match keys {
        Some(keys) => {
            let primary = Idempotency::builder()
                .store(Sealed::around(store.clone(), keys.primary))
                .store_timeout(shared.timeout);
            let store = sealed(store, keys.all, shared.read_unsealed);
            (store, Some(primary.build()))
        }
        None => (store, None),
    };
    let mut builder = Idempotency::builder()
        .store(store.clone())
        .namespace(shared.namespace.as_str())
        .store_timeout(shared.timeout);
    if let Some(secret) = id_secret {
        builder = builder.id_secret(&*secret);
    }
    Ok(Opened {
        store,
        idem: builder.build(),
        primary,
        reads_unsealed: shared.read_unsealed,
    })
}

fn sealed(store: Arc<dyn Store>, keys: Keys, reads_unsealed: bool) -> Arc<dyn Store> {
    let sealed = Sealed::around(store, keys);
    Arc::new(if reads_unsealed {
        sealed.read_unsealed()
    } else {
        sealed
    })
}

/// The address is not repeated, because it may contain a password.
fn unknown_scheme() -> Failure {
    Failure::Usage(
        "the address of the store must begin with `redis://`, `rediss://`, `redis+unix://`, \
         `redis+cluster://`, `rediss+cluster://`, `redis+sentinel://`, `rediss+sentinel://`, `postgres://` or `sqlite://`"
            .into(),
    )
}

fn without(argument: &str, given: Option<&String>, store: &str) -> Result<(), Failure> {
    match given {
        None => Ok(()),
        Some(_) => Err(Failure::Usage(format!(
            "`{argument}` does not apply to {store}"
        ))),
    }
}

async fn redis(
    shared: &Shared,
    scheme: &str,
    rest: &str,
    url: &str,
) -> Result<RedisStore, Failure> {
    let builder = RedisStore::builder().timeout(shared.timeout);
    let mut builder = match scheme.split_once('+') {
        Some((scheme, "cluster")) => builder.cluster(redis_address::cluster(scheme, rest)?),
        Some((scheme, "sentinel")) => Sentinel::parse(scheme, rest)?.into_builder(builder),
        _ => builder.url(url),
    };
    if let Some(prefix) = &shared.prefix {
        builder = builder.prefix(prefix);
    }
    Ok(builder.connect().await?)
}

async fn postgres(shared: &Shared, url: &str) -> Result<PostgresStore, Failure> {
    let mut builder = PostgresStore::builder()
        .url(url)
        .timeout(shared.timeout)
        .max_connections(2)
        .migrate(false)
        .no_sweeper();
    if let Some(table) = &shared.table {
        builder = builder.table(table);
    }
    if let Some(schema) = &shared.schema {
        builder = builder.schema(schema);
    }
    Ok(builder.connect().await?)
}

async fn sqlite(shared: &Shared, path: &str) -> Result<SqliteStore, Failure> {
    // A wrong path would create an empty file.
    if !Path::new(path).is_file() {
        return Err(Failure::Usage(format!(
            "there is no file `{path}`; write `sqlite://` and the path of the store's file"
        )));
    }
    let mut builder = SqliteStore::builder()
        .path(path)
        .busy_timeout(shared.timeout / 2)
        .migrate(false)
        .no_sweeper();
    if let Some(table) = &shared.table {
        builder = builder.table(table);
    }
    Ok(builder.open().await?)
}

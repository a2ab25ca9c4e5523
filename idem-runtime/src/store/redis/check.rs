//! Checks each new connection: whether the server is a primary, and whether it evicts entries.

use redis::aio::{ConnectionLike, MultiplexedConnection};
use redis::{InfoDict, Pipeline, Value};

use super::failure::{Failure, is_denied, missing};

/// Checks the server, and returns its clock in microseconds since 1970.
///
/// # Errors
///
/// [`Failure::Unfit`] when the server evicts keys that have not expired as soon as its memory is
/// full. Such keys include claims in flight, and an evicted claim means a second run.
/// [`Failure::Replica`] when the server is a replica.
pub(super) async fn check(
    connection: &mut MultiplexedConnection,
    address: &str,
) -> Result<u64, Failure> {
    let mut all = Pipeline::with_capacity(3);
    all.add_command(redis::cmd("TIME"));
    for section in ["replication", "memory"] {
        let mut info = redis::cmd("INFO");
        info.arg(section);
        all.add_command(info);
    }
    let replies = connection.send_packed_commands(&all, 0, 3).await?;
    let Ok([time, replication, memory]) = <[Value; 3]>::try_from(replies) else {
        return Err(unreadable(address));
    };
    let time = time.extract_error().map_err(|error| {
        if is_denied(&error) {
            Failure::Unfit(missing("TIME", &error).into())
        } else {
            Failure::Redis(error)
        }
    })?;
    if field(&replication, "role").is_some_and(|role| role == "slave") {
        return Err(Failure::Replica(address.into()));
    }
    policy(&memory, address)?;
    let (seconds, micros): (u64, u64) =
        redis::from_redis_value(time).map_err(|_| unreadable(address))?;
    Ok(seconds.saturating_mul(1_000_000).saturating_add(micros))
}

/// Checks whether a replica evicts, because it may be promoted.
pub(super) async fn check_replica(
    connection: &mut MultiplexedConnection,
    address: &str,
) -> Result<(), Failure> {
    let mut info = redis::cmd("INFO");
    info.arg("memory");
    let memory = connection.req_packed_command(&info).await?;
    policy(&memory, address)
}

fn policy(memory: &Value, address: &str) -> Result<(), Failure> {
    match field(memory, "maxmemory_policy") {
        None => {
            tracing::warn!(
                target: crate::trace::TARGET,
                "redis at {address} does not report its maxmemory-policy; \
                 with any policy but `noeviction` it evicts claims, and handlers run twice"
            );
            Ok(())
        }
        Some(policy) if policy == "noeviction" => Ok(()),
        Some(policy) => Err(Failure::Unfit(
            format!(
                "redis at {address} has `maxmemory-policy {policy}`, so it evicts claims when its \
                 memory is full, and handlers run twice; set it to `noeviction`"
            )
            .into(),
        )),
    }
}

fn field(info: &Value, name: &str) -> Option<String> {
    redis::from_redis_value_ref::<InfoDict>(info)
        .ok()?
        .get(name)
}

fn unreadable(address: &str) -> Failure {
    let why = format!("redis at {address} sent unexpected replies; does a proxy rewrite them?");
    Failure::Unserved(why.into())
}

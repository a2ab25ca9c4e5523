//! Looks whether a server keeps what it is given.

use redis::aio::ConnectionLike;
use redis::{InfoDict, Value};

use super::link::Failure;
use crate::store::StoreError;

/// # Errors
///
/// When the server drops keys that are not expired as soon as its memory is full. Among them are
/// claims in flight, and each of those is a second run.
pub(super) async fn check(connection: &mut impl ConnectionLike) -> Result<(), Failure> {
    let answer = redis::cmd("INFO")
        .arg("memory")
        .query_async::<Value>(connection)
        .await;
    let policies = match answer {
        Ok(answer) => policies(answer),
        Err(error) if error.code().is_some() => {
            tracing::debug!(target: crate::TARGET, %error, "INFO was refused");
            Vec::new()
        }
        Err(error) => return Err(error.into()),
    };
    if policies.is_empty() {
        tracing::warn!(
            target: crate::TARGET,
            "the redis server does not tell its maxmemory-policy; \
             with any but `noeviction` it drops claims, and handlers run twice"
        );
    }
    match policies.iter().find(|policy| *policy != "noeviction") {
        None => Ok(()),
        Some(policy) => Err(Failure::Store(StoreError::Unfit(
            format!(
                "the redis server has `maxmemory-policy {policy}` and so drops claims when its \
                 memory is full, and handlers run twice; set it to `noeviction`"
            )
            .into(),
        ))),
    }
}

/// What each server says; a cluster's answer is a map of its nodes'.
fn policies(answer: Value) -> Vec<String> {
    match answer {
        Value::Map(nodes) => nodes
            .into_iter()
            .flat_map(|(_, answer)| policies(answer))
            .collect(),
        answer => redis::from_redis_value::<InfoDict>(answer)
            .ok()
            .and_then(|info| info.get("maxmemory_policy"))
            .into_iter()
            .collect(),
    }
}

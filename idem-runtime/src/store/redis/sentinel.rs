//! Asks Sentinels which server is the primary.

use std::collections::HashMap;

use redis::aio::MultiplexedConnection;
use redis::{Pipeline, Value};

use super::access::Access;
use super::ask_all::{Newest, ask_all, outdated};
use super::failure::Failure;
use super::located::{Located, Place};

/// The Sentinels of one service.
pub(super) struct Sentinels {
    pub(super) service: String,
    pub(super) asked: Vec<Access>,
    /// The access settings of the primary.
    pub(super) primary: Access,
    pub(super) newest: Newest,
}

/// The reply of one Sentinel.
struct Opinion {
    /// Grows with every failover. After a failover, the Sentinels learn of the new primary one by
    /// one.
    epoch: u64,
    primary: Place,
    replicas: Vec<Place>,
}

impl Sentinels {
    /// # Errors
    ///
    /// When no Sentinel replies, or no Sentinel knows the service.
    pub(super) async fn locate(&self) -> Result<Located, Failure> {
        let accesses = self.asked.iter().cloned();
        let (opinions, everybody) = ask_all(accesses, |_, connection| self.ask(connection)).await?;
        let newest = opinions.into_iter().flatten().max_by_key(|it| it.epoch);
        let newest = newest.ok_or_else(|| {
            let service = &self.service;
            Failure::Unserved(format!("no Sentinel knows a primary for `{service}`").into())
        })?;
        if !self.newest.accepts(newest.epoch, everybody) {
            return Err(outdated());
        }
        Ok(Located::one(newest.primary, newest.replicas))
    }

    async fn ask(&self, mut connection: MultiplexedConnection) -> Result<Option<Opinion>, Failure> {
        let mut all = Pipeline::with_capacity(3);
        for question in ["GET-MASTER-ADDR-BY-NAME", "MASTER", "REPLICAS"] {
            let mut command = redis::cmd("SENTINEL");
            command.arg(question).arg(&self.service);
            all.add_command(command);
        }
        let replies = connection.send_packed_commands(&all, 0, 3).await?;
        let Ok([address, primary, replicas]) = <[Value; 3]>::try_from(replies) else {
            return Ok(None);
        };
        let address = address.extract_error()?;
        let Ok(Some((host, port))) = redis::from_redis_value(address) else {
            return Ok(None);
        };
        // A Sentinel whose permissions exclude `MASTER` reports no epoch, so all others are
        // preferred.
        let primary: HashMap<String, String> = redis::from_redis_value(primary).unwrap_or_default();
        let epoch = primary.get("config-epoch").and_then(|it| it.parse().ok());
        let replicas: Vec<HashMap<String, String>> =
            redis::from_redis_value(replicas).unwrap_or_default();
        Ok(Some(Opinion {
            epoch: epoch.unwrap_or_default(),
            primary: Place { host, port },
            replicas: replicas.iter().filter_map(place).collect(),
        }))
    }
}

fn place(replica: &HashMap<String, String>) -> Option<Place> {
    Some(Place {
        host: replica.get("ip")?.clone(),
        port: replica.get("port")?.parse().ok()?,
    })
}

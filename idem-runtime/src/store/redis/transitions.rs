//! The transitions of a claim and its record, each with the scripts that it sends.

use redis::Value;
use tokio::time::Instant;

use super::Inner;
use super::form::{self, holder_bytes};
use super::reply::Reply;
use super::script::{self, Transition};
use super::server::{Replicas, Request, Sent};
use crate::request::hex;
use crate::request::record_id::RecordId;
use crate::settings::policy::OnUnknown;
use crate::store::millis::millis;
use crate::store::{Claim, Claimed, Entry, Holder, Settled, StoreError};

/// How often a claim is sent when the server reports that the deadline has passed. The second try
/// uses a new reading of the server's clock.
const CLOCKS: u32 = 2;

impl Inner {
    /// The prefix and the digits of the id.
    pub(super) fn key(&self, id: RecordId) -> String {
        let mut key = String::with_capacity(self.prefix.len() + 64);
        key.push_str(&self.prefix);
        // A string takes everything.
        let _ = hex::write(&mut key, id.as_bytes());
        key
    }

    pub(super) fn deadline(&self) -> Instant {
        Instant::now() + self.timeout
    }

    async fn run(
        &self,
        transition: &Transition,
        id: RecordId,
        arguments: &[&[u8]],
        replicas: Option<Replicas>,
        deadline: Instant,
    ) -> Result<(Reply, Sent), StoreError> {
        let request = Request {
            transition,
            key: &self.key(id),
            arguments,
            expires: false,
            replicas,
            deadline,
        };
        self.servers
            .send(&request)
            .await
            .map_err(Into::into)
            .and_then(read)
    }

    pub(super) async fn claim(&self, claim: Claim) -> Result<Claimed, StoreError> {
        let retention = millis(claim.retention);
        let kept = (millis(claim.lease) + retention).to_string();
        let rerun: &[u8] = match claim.on_unknown {
            OnUnknown::Rerun => b"1",
            OnUnknown::Hold => b"0",
        };
        let mut claimed = [0; 40];
        claimed[..32].copy_from_slice(claim.fingerprint.as_bytes());
        claimed[32..].copy_from_slice(&retention.to_le_bytes());
        let origin = form::origin_bytes(&claim.origin);
        let arguments = [
            claim.owner.as_bytes(),
            &claimed[..],
            kept.as_bytes(),
            rerun,
            &origin[..],
        ];
        let request = Request {
            transition: &script::CLAIM,
            key: &self.key(claim.id),
            arguments: &arguments,
            expires: true,
            replicas: self.replicas,
            deadline: self.deadline(),
        };
        // Each connection has its own reading of the clock, so both tries use the same one.
        let turn = self.servers.next_turn();
        for _ in 0..CLOCKS {
            let (reply, sent) = match self.servers.send_in_turn(&request, turn).await {
                Ok(sent) => read(sent)?,
                Err(failure) if failure.is_out_of_memory() => return Ok(Claimed::Full),
                Err(failure) => return Err(failure.into()),
            };
            let Some(micros) = reply.too_late() else {
                let claimed = reply.claimed()?;
                if matches!(claimed, Claimed::Fresh { .. }) {
                    self.ensure(sent.acknowledged)?;
                }
                return Ok(claimed);
            };
            // In time by this process's reading, but too late for the server: the server's clock
            // was set, or was read while the server was slow.
            sent.clock.learn(micros, sent.at);
        }
        Err(StoreError::TimedOut)
    }

    /// Sends a transition that reports only whether it took effect.
    pub(super) async fn settle(
        &self,
        transition: &Transition,
        id: RecordId,
        arguments: &[&[u8]],
    ) -> Result<Settled, StoreError> {
        let (reply, sent) = self
            .run(transition, id, arguments, self.replicas, self.deadline())
            .await?;
        let settled = reply.settled()?;
        if settled == Settled::Done {
            self.ensure(sent.acknowledged)?;
        }
        Ok(settled)
    }

    /// Checks that enough replicas have the write.
    fn ensure(&self, acknowledged: Option<usize>) -> Result<(), StoreError> {
        match (self.replicas, acknowledged) {
            (Some(wanted), Some(count)) if count < wanted.count => Err(StoreError::Unavailable(
                format!(
                    "{count} of {} redis replicas acknowledged the write in time",
                    wanted.count
                )
                .into(),
            )),
            _ => Ok(()),
        }
    }

    pub(super) async fn look_up(&self, id: RecordId) -> Result<Option<Entry>, StoreError> {
        let (reply, _) = self
            .run(&script::LOOK_UP, id, &[], None, self.deadline())
            .await?;
        reply.entry()
    }

    /// Removes only the entry that it has read. If `FORGET` is sent again after its reply was lost,
    /// it must not remove a newer claim.
    pub(super) async fn forget(&self, id: RecordId) -> Result<bool, StoreError> {
        let deadline = self.deadline();
        loop {
            let (reply, _) = self.run(&script::IDENTIFY, id, &[], None, deadline).await?;
            let Some(identity) = reply.identity() else {
                return Ok(false);
            };
            let (reply, sent) = self
                .run(&script::FORGET, id, &[&identity], self.replicas, deadline)
                .await?;
            if reply.settled()? == Settled::Done {
                self.ensure(sent.acknowledged)?;
                return Ok(true);
            }
            // The `FORGET` whose reply was lost may have removed the entry.
            if sent.resent && self.is_gone(id, &identity, deadline).await? {
                return Ok(true);
            }
        }
    }

    pub(super) async fn release(&self, holder: Holder) -> Result<Settled, StoreError> {
        let (holder_bytes, deadline) = (holder_bytes(holder), self.deadline());
        let arguments = [&holder_bytes[..]];
        let (reply, sent) = self
            .run(
                &script::RELEASE,
                holder.id,
                &arguments,
                self.replicas,
                deadline,
            )
            .await?;
        if reply.settled()? == Settled::Done {
            self.ensure(sent.acknowledged)?;
            return Ok(Settled::Done);
        }
        // The `RELEASE` whose reply was lost may have released the claim. Another request may have
        // claimed the key in the meantime.
        let identity = [b"S", &holder_bytes[..]].concat();
        if sent.resent && self.is_gone(holder.id, &identity, deadline).await? {
            return Ok(Settled::Done);
        }
        Ok(Settled::Lost)
    }

    /// Returns whether a claim or record was removed. Returns `false` when another attempt took it
    /// over.
    async fn is_gone(
        &self,
        id: RecordId,
        identity: &[u8],
        deadline: Instant,
    ) -> Result<bool, StoreError> {
        let (reply, sent) = self
            .run(&script::GONE, id, &[identity], self.replicas, deadline)
            .await?;
        let is_gone = reply.settled()? == Settled::Done;
        if is_gone {
            self.ensure(sent.acknowledged)?;
        }
        Ok(is_gone)
    }
}

fn read(mut sent: Sent) -> Result<(Reply, Sent), StoreError> {
    let value = std::mem::replace(&mut sent.value, Value::Nil);
    Ok((Reply::new(value)?, sent))
}

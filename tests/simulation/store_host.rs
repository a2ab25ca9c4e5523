//! The host of the store, and the client that a service uses.

use std::error::Error;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use axum_idem::Fingerprint;
use axum_idem::RecordId;
use axum_idem::store::{
    Claim, Claimed, Entry, Holder, Keys, MemoryStore, OnUnknown, Owner, Record, Sealed, Settled,
    Store, StoreError, StoreFuture,
};
use serde::de::DeserializeOwned;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::Instant;
use turmoil::net::{TcpListener, TcpStream};

use test_support::listing::listing_is_true;

use crate::STORE;
use crate::chaos::Skew;
use crate::oracle::Oracle;
use crate::wire::{Answer, Question};

const PORT: u16 = 6379;

/// The sealing keys of two versions of the service, in the second step of a rotation.
pub(crate) fn keys(is_new: bool) -> Keys {
    let (first, second) = ([1; 32], [2; 32]);
    if is_new {
        Keys::new().primary(2, second).also(1, first)
    } else {
        Keys::new().primary(1, first).also(2, second)
    }
}

/// The state of the store's host that survives crashes.
#[derive(Clone)]
pub(crate) struct Vault {
    store: MemoryStore,
    /// The same store as an operator of the service sees it.
    pub(crate) shown: Arc<dyn Store>,
    oracle: Oracle,
    /// The start of the simulation by the host's clock.
    began_at: Arc<OnceLock<Instant>>,
}

impl Vault {
    pub(crate) fn new(oracle: Oracle, is_sealed: bool) -> Self {
        let store = MemoryStore::default();
        let shown: Arc<dyn Store> = if is_sealed {
            Arc::new(Sealed::around(store.clone(), keys(false)))
        } else {
            Arc::new(store.clone())
        };
        Self {
            store,
            shown,
            oracle,
            began_at: Arc::default(),
        }
    }

    async fn answer(&self, question: Question) -> Result<Answer, StoreError> {
        // An operator who looks between any two transitions sees each record once, in the state that it has.
        listing_is_true(&*self.shown).await;
        let store = &self.store;
        Ok(match question {
            Question::Claim {
                id,
                fingerprint,
                owner,
                lease,
                retention,
                rerun,
            } => {
                let fingerprint = Fingerprint::from_bytes(fingerprint);
                let id = RecordId::from_bytes(id);
                let mut claim = Claim::new(id, fingerprint, lease, retention);
                claim.owner = Owner::from_bytes(owner);
                if !rerun {
                    claim.on_unknown = OnUnknown::Hold;
                }
                let claimed = store.claim(claim).await?;
                if let Claimed::Fresh { fence, .. } = claimed {
                    self.oracle.claimed(id, fence, lease);
                }
                Answer::of_claim(claimed)
            }
            Question::Renew(who, lease) => {
                let renewed = store.renew(who.into(), lease).await?;
                if renewed == Settled::Done {
                    self.oracle.renewed(who.into(), lease);
                }
                Answer::of_settling(renewed)
            }
            Question::Complete(who, record, ttl) => {
                let record = Record::decode(record.into()).map_err(StoreError::Undecodable)?;
                let completed = store.complete(who.into(), record, ttl).await?;
                if completed == Settled::Done {
                    self.oracle.completed(who.into());
                }
                Answer::of_settling(completed)
            }
            Question::Release(who) => {
                let released = store.release(who.into()).await?;
                if released == Settled::Done {
                    self.oracle.released(who.into());
                }
                Answer::of_settling(released)
            }
            Question::Abandon(who) => {
                let abandoned = store.abandon(who.into()).await?;
                if abandoned == Settled::Done {
                    self.oracle.abandoned(who.into());
                }
                Answer::of_settling(abandoned)
            }
        })
    }
}

/// Serves until the host crashes.
pub(crate) async fn run(vault: Vault, skew: Skew) -> Result<(), Box<dyn Error>> {
    // turmoil resets the clock of a host that restarts. This host continues its old clock.
    let elapsed = turmoil::sim_elapsed().unwrap_or_default();
    let began_at = *vault.began_at.get_or_init(|| Instant::now() - elapsed);
    let now = began_at + elapsed + skew.total();
    tokio::time::advance(now.saturating_duration_since(Instant::now())).await;
    tokio::spawn(skew.follow());
    let listener = TcpListener::bind(("0.0.0.0", PORT)).await?;
    loop {
        let (stream, _) = listener.accept().await?;
        let vault = vault.clone();
        tokio::spawn(async move {
            // The other side handles a broken connection.
            let _ = serve(vault, stream).await;
        });
    }
}

async fn serve(vault: Vault, mut stream: TcpStream) -> Result<(), Box<dyn Error>> {
    let question = receive(&mut stream).await?;
    let answer = vault.answer(question).await?;
    send(&mut stream, &answer).await
}

async fn send(
    stream: &mut TcpStream,
    message: &impl serde::Serialize,
) -> Result<(), Box<dyn Error>> {
    let bytes = serde_json::to_vec(message)?;
    stream.write_u32(u32::try_from(bytes.len())?).await?;
    stream.write_all(&bytes).await?;
    stream.flush().await?;
    Ok(())
}

async fn receive<T: DeserializeOwned>(stream: &mut TcpStream) -> Result<T, Box<dyn Error>> {
    let length = stream.read_u32().await?;
    let mut bytes = vec![0; usize::try_from(length)?];
    stream.read_exact(&mut bytes).await?;
    Ok(serde_json::from_slice(&bytes)?)
}

/// The store as a service sees it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RemoteStore;

fn ask<T>(
    question: Question,
    read: impl FnOnce(Answer) -> Option<T> + Send + 'static,
) -> StoreFuture<T> {
    StoreFuture::new(async move {
        let asked = async {
            let mut stream = TcpStream::connect((STORE, PORT)).await?;
            send(&mut stream, &question).await?;
            receive(&mut stream).await
        };
        let unavailable = |why: String| StoreError::Unavailable(why.into());
        let answer = asked
            .await
            .map_err(|why: Box<dyn Error>| unavailable(why.to_string()))?;
        read(answer).ok_or_else(|| unavailable("unexpected reply of the store".to_owned()))
    })
}

fn unspoken<T>() -> StoreFuture<T> {
    StoreFuture::ready(Err(StoreError::Unavailable(
        "this operation is not in the protocol".into(),
    )))
}

impl Store for RemoteStore {
    fn claim(&self, claim: Claim) -> StoreFuture<Claimed> {
        ask(Question::claim(&claim), Answer::claimed)
    }

    fn renew(&self, holder: Holder, lease: Duration) -> StoreFuture<Settled> {
        ask(Question::Renew(holder.into(), lease), Answer::settled)
    }

    fn complete(&self, holder: Holder, record: Record, ttl: Duration) -> StoreFuture<Settled> {
        let question = Question::Complete(holder.into(), record.as_bytes().to_vec(), ttl);
        ask(question, Answer::settled)
    }

    fn release(&self, holder: Holder) -> StoreFuture<Settled> {
        ask(Question::Release(holder.into()), Answer::settled)
    }

    fn abandon(&self, holder: Holder) -> StoreFuture<Settled> {
        ask(Question::Abandon(holder.into()), Answer::settled)
    }

    fn look_up(&self, _: RecordId) -> StoreFuture<Option<Entry>> {
        unspoken()
    }

    fn forget(&self, _: RecordId) -> StoreFuture<bool> {
        unspoken()
    }

    fn resolve(&self, _: RecordId, _: u64, _: Record, _: Duration) -> StoreFuture<Settled> {
        unspoken()
    }
}

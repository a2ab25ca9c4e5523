//! Fuzzes the opening of sealed records, which come from a store that others may write to.

use std::pin::pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::Bytes;
use chacha20poly1305::aead::AeadInOut;
use chacha20poly1305::{KeyInit, XChaCha20Poly1305};
use idem_runtime::store::{
    Claim, Claimed, Entry, Holder, Keys, Owner, Record, Sealed, Settled, Store, StoreError,
    StoreFuture,
};
use idem_runtime::{Fingerprint, RecordId};

/// The only records that open. They are the frozen vectors of the format.
const GENUINE: [&[u8]; 2] = [
    include_bytes!("../seeds/sealed/answer"),
    include_bytes!("../seeds/sealed/not_kept"),
];

const ID: RecordId = RecordId::from_bytes([3; 32]);
const FINGERPRINT: Fingerprint = Fingerprint::from_bytes([7; 32]);
const KEY_ID: u32 = 9;
const HEAD: usize = 42;
const HOUR: Duration = Duration::from_secs(3600);

/// Opens the input as a sealed record, or as the text inside of one when the input begins with `T`.
pub fn sealed(input: &[u8]) {
    match input.split_first() {
        Some((b'T', text)) => opened_text(text),
        _ => opened(input),
    }
}

/// Only the genuine records open. Any other record is an error, and stays an error when it is asked for again.
fn opened(input: &[u8]) {
    let Ok(record) = Record::decode(Bytes::copy_from_slice(input)) else {
        assert!(!GENUINE.contains(&input));
        return;
    };
    let store = Below::with(record.clone());
    let opened = claim(&store);
    assert_eq!(opened.is_ok(), GENUINE.contains(&input), "{opened:?}");
    if input[1] != 2 {
        sealed_again(&record);
    }
}

/// Text that authenticates need not be a record. Whatever opens is sealed and opened again without a change.
fn opened_text(text: &[u8]) {
    let Ok(record) = Record::decode(seal(text).into()) else {
        return;
    };
    match claim(&Below::with(record)) {
        Ok(opened) => {
            assert_eq!(opened.as_bytes().len(), text.len() + 33);
            sealed_again(&opened);
        }
        Err(error) => assert!(matches!(error, StoreError::Undecodable(_)), "{error:?}"),
    }
}

/// A record opens after it was sealed. With a flipped bit, or without its end, it does not.
fn sealed_again(record: &Record) {
    let below = Below::default();
    let holder = Holder {
        id: ID,
        owner: Owner::from_bytes([1; 16]),
        fence: 1,
    };
    let completed = ready(around(&below).complete(holder, record.clone(), HOUR));
    assert!(matches!(completed, Ok(Settled::Done)));
    let opened = claim(&below);
    assert_eq!(opened.as_ref().ok(), Some(record), "{opened:?}");
    let sealed = below.record().as_bytes().clone();
    for at in [0, 1, 33, HEAD, HEAD + 4, sealed.len() / 2, sealed.len() - 1] {
        let mut flipped = sealed.to_vec();
        flipped[at] ^= 1;
        for changed in [flipped, sealed[..at].to_vec()] {
            let refused = Record::decode(changed.into()).map(|it| claim(&Below::with(it)));
            assert!(!matches!(refused, Ok(Ok(_))), "at {at}: {refused:?}");
        }
    }
}

fn key() -> [u8; 32] {
    std::array::from_fn(|at| u8::try_from(at).unwrap_or_default())
}

fn around(below: &Below) -> Sealed<Below> {
    Sealed::around(below.clone(), Keys::new().primary(KEY_ID, key()))
}

fn claim(below: &Below) -> Result<Record, StoreError> {
    let claim = Claim::new(ID, FINGERPRINT, HOUR, HOUR);
    match ready(around(below).claim(claim))? {
        Claimed::Recorded { record, .. } => Ok(record),
        other => panic!("{other:?}"),
    }
}

/// Seals any text, by the documentation of the format.
fn seal(text: &[u8]) -> Vec<u8> {
    let nonce = [5; 24];
    let mut data = b"axum-idem sealed v1".to_vec();
    data.extend(ID.as_bytes());
    data.extend(KEY_ID.to_le_bytes());
    data.extend(FINGERPRINT.as_bytes());
    let mut encrypted = text.to_vec();
    let tag = XChaCha20Poly1305::new((&key()).into()).encrypt_inout_detached(
        &nonce.into(),
        &data,
        encrypted.as_mut_slice().into(),
    );
    let mut record = vec![1, 2];
    record.extend(FINGERPRINT.as_bytes());
    record.extend([0; 4]);
    let len = 4 + nonce.len() + text.len() + 16;
    record.extend(u32::try_from(len).expect("a short text").to_le_bytes());
    record.extend(KEY_ID.to_le_bytes());
    record.extend(nonce);
    record.extend(encrypted);
    record.extend(tag.expect("a short text"));
    record
}

fn ready<T>(future: StoreFuture<T>) -> Result<T, StoreError> {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(result) => result,
        Poll::Pending => panic!("the store replies immediately"),
    }
}

/// A store that has one record.
#[derive(Clone, Default)]
struct Below(Arc<Mutex<Option<Record>>>);

impl Below {
    fn with(record: Record) -> Self {
        Self(Arc::new(Mutex::new(Some(record))))
    }

    fn record(&self) -> Record {
        let record = self.0.lock().expect("no panic").clone();
        record.expect("there is a record")
    }

    fn keep(&self, record: Record) -> StoreFuture<Settled> {
        *self.0.lock().expect("no panic") = Some(record);
        StoreFuture::ready(Ok(Settled::Done))
    }
}

fn unused<T>() -> StoreFuture<T> {
    StoreFuture::ready(Err(StoreError::Unsupported))
}

impl Store for Below {
    fn claim(&self, _: Claim) -> StoreFuture<Claimed> {
        let record = self.record();
        StoreFuture::ready(Ok(Claimed::Recorded {
            record,
            expires_in: HOUR,
        }))
    }

    fn renew(&self, _: Holder, _: Duration) -> StoreFuture<Settled> {
        unused()
    }

    fn complete(&self, _: Holder, record: Record, _: Duration) -> StoreFuture<Settled> {
        self.keep(record)
    }

    fn release(&self, _: Holder) -> StoreFuture<Settled> {
        unused()
    }

    fn abandon(&self, _: Holder) -> StoreFuture<Settled> {
        unused()
    }

    fn look_up(&self, _: RecordId) -> StoreFuture<Option<Entry>> {
        unused()
    }

    fn forget(&self, _: RecordId) -> StoreFuture<bool> {
        unused()
    }

    fn resolve(&self, _: RecordId, _: u64, _: Record, _: Duration) -> StoreFuture<Settled> {
        unused()
    }
}

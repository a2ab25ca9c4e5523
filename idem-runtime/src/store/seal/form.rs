//! The frozen form of a sealed record, and its encryption.
//!
//! The encrypted part of a sealed record is its body. All numbers are little-endian.
//!
//! | bytes | meaning |
//! |---|---|
//! | 4 | id of the key |
//! | 24 | nonce |
//! | … | XChaCha20-Poly1305 of the plain record without its version and its fingerprint |
//! | 16 | tag |
//!
//! The associated data is `axum-idem sealed v1`, the record id, the id of the key, and the fingerprint. So a record
//! that was moved to another record id does not open.

use bytes::{Buf, BytesMut};
use chacha20::{R20, hchacha};
use ring::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, Nonce, Tag, UnboundKey};
use zeroize::Zeroizing;

use super::keys::{Keys, SealingKey};
use super::nonces::NONCE;
use crate::request::fingerprint::Fingerprint;
use crate::request::record_id::RecordId;
use crate::store::record::{self, DecodeError, Record};

const DOMAIN: &[u8] = b"axum-idem sealed v1";
const KEY_ID: usize = 4;
const TAG: usize = 16;
/// The version and the fingerprint of a plain record, which are not encrypted.
const NOT_ENCRYPTED: usize = 33;
/// Where the encrypted text of a sealed record begins.
const TEXT: usize = record::HEAD + KEY_ID + NONCE;

/// Seals a record. Returns `None` when the sealed record would have 4 GiB or more.
pub(super) fn seal(
    plain: &Record,
    id: RecordId,
    (key_id, key): (u32, &SealingKey),
    nonce: [u8; NONCE],
) -> Option<Record> {
    let text = plain.as_bytes().len() - NOT_ENCRYPTED;
    let len = KEY_ID + NONCE + text + TAG;
    let head = record::sealed_head(plain.fingerprint(), u32::try_from(len).ok()?);
    let mut buffer = Vec::with_capacity(head.len() + len);
    buffer.extend_from_slice(&head);
    buffer.extend_from_slice(&key_id.to_le_bytes());
    buffer.extend_from_slice(&nonce);
    let at = buffer.len();
    buffer.push(plain.as_bytes()[1]);
    buffer.extend_from_slice(&plain.as_bytes()[record::STATUS..]);
    let (cipher, nonce) = cipher(key, &nonce)?;
    let data = associated_data(id, key_id, plain.fingerprint());
    let tag = cipher.seal_in_place_separate_tag(nonce, Aad::from(data), &mut buffer[at..]);
    buffer.extend_from_slice(tag.ok()?.as_ref());
    Some(Record::of_sealed(buffer.into()).with_first_trace_id(plain.first_trace_id()))
}

/// Opens a sealed record. Decrypts it in place when nobody else has its bytes, and copies them once otherwise. Allocates
/// no more than the record has bytes.
pub(super) fn open(sealed: Record, id: RecordId, keys: &Keys) -> Result<Record, DecodeError> {
    if !sealed.is_sealed() {
        return Err(DecodeError::NotSealed);
    }
    let (fingerprint, first_trace_id) = (sealed.fingerprint(), sealed.first_trace_id());
    let bytes = sealed.into_bytes();
    let body = &bytes[record::HEAD..];
    let (key_id, rest) = body.split_first_chunk().ok_or(DecodeError::Damaged)?;
    let key_id = u32::from_le_bytes(*key_id);
    let (nonce, rest) = rest
        .split_first_chunk::<NONCE>()
        .ok_or(DecodeError::Damaged)?;
    let (text, tag) = rest.split_last_chunk::<TAG>().ok_or(DecodeError::Damaged)?;
    if text.is_empty() {
        return Err(DecodeError::Damaged);
    }
    let key = keys.get(key_id).ok_or(DecodeError::MissingKey(key_id))?;
    let (cipher, nonce) = cipher(key, nonce).ok_or(DecodeError::NotAuthentic)?;
    let tag = Tag::from(*tag);
    // The plain record ends with the text, and begins in the fields before the text.
    let plain = TEXT - NOT_ENCRYPTED..bytes.len() - TAG;
    let mut plain = match bytes.try_into_mut() {
        Ok(mut own) => {
            own.truncate(plain.end);
            own.advance(plain.start);
            own
        }
        Err(shared) => BytesMut::from(&shared[plain]),
    };
    let data = Aad::from(associated_data(id, key_id, fingerprint));
    let text = &mut plain[NOT_ENCRYPTED..];
    cipher
        .open_in_place_separate_tag(nonce, data, tag, text, 0..)
        .map_err(|_| DecodeError::NotAuthentic)?;
    // The plain record begins with a version, its kind and the fingerprint. The kind is the first byte of the text.
    plain[0] = record::VERSION;
    plain[1] = plain[NOT_ENCRYPTED];
    plain[2..record::STATUS].copy_from_slice(fingerprint.as_bytes());
    if plain[1] == record::SEALED {
        return Err(DecodeError::Damaged);
    }
    Ok(Record::decode(plain.freeze())?.with_first_trace_id(first_trace_id))
}

/// `XChaCha20-Poly1305` is `ChaCha20-Poly1305` with a key that `HChaCha20` computes from the first 16 bytes of the nonce. The
/// other 8 bytes are the end of the shorter nonce. `ring` has none of its own.
#[inline]
fn cipher(key: &SealingKey, nonce: &[u8; NONCE]) -> Option<(LessSafeKey, Nonce)> {
    let (begin, end) = nonce.split_first_chunk::<16>()?;
    let of_record = hchacha::<R20>(key.as_bytes().into(), begin.into());
    let of_record: Zeroizing<[u8; 32]> = Zeroizing::new(of_record.into());
    let of_record = UnboundKey::new(&CHACHA20_POLY1305, &*of_record).ok()?;
    let mut short = [0; 12];
    short[4..].copy_from_slice(end);
    let short = Nonce::assume_unique_for_key(short);
    Some((LessSafeKey::new(of_record), short))
}

fn associated_data(id: RecordId, key_id: u32, fingerprint: Fingerprint) -> [u8; 87] {
    let mut data = [0; 87];
    let (domain, rest) = data.split_at_mut(DOMAIN.len());
    domain.copy_from_slice(DOMAIN);
    rest[..32].copy_from_slice(id.as_bytes());
    rest[32..36].copy_from_slice(&key_id.to_le_bytes());
    rest[36..].copy_from_slice(fingerprint.as_bytes());
    data
}

#[cfg(test)]
mod tests {
    use http::{HeaderMap, HeaderValue, StatusCode};

    use super::*;

    const ID: RecordId = RecordId::from_bytes([3; 32]);
    const FINGERPRINT: Fingerprint = Fingerprint::from_bytes([7; 32]);

    fn keys() -> Keys {
        let mut key = [0; 32];
        (0..32).for_each(|at| key[usize::from(at)] = at);
        Keys::new().primary(9, key)
    }

    fn plain() -> Record {
        let mut headers = HeaderMap::new();
        headers.append("location", HeaderValue::from_static("/cards/1"));
        Record::answer(FINGERPRINT, StatusCode::CREATED, &headers, b"token-1").expect("fits")
    }

    fn sealed(plain: &Record) -> Record {
        let keys = keys();
        let first = keys.first().expect("a primary key");
        seal(plain, ID, first, [5; NONCE]).expect("fits")
    }

    fn digits(bytes: &[u8]) -> String {
        let mut digits = String::new();
        crate::request::hex::write(&mut digits, bytes).expect("a string takes everything");
        digits
    }

    /// Another implementation of XChaCha20-Poly1305 computed these bytes.
    #[test]
    fn a_sealed_record_is_the_frozen_bytes() {
        let expected = [
            "0102",
            &"07".repeat(32),
            "00000000",
            "52000000",
            "09000000",
            &"05".repeat(24),
            "058868970f5c6d16698fb1aafc148d5d94e6986411ba24ae25aa99eea1eae09d82ff7912ca75bf4c55b4885659dd5ff1640b904aa0fa",
        ];
        assert_eq!(digits(sealed(&plain()).as_bytes()), expected.concat());
        let none = Record::not_kept(FINGERPRINT, StatusCode::OK);
        let expected = [
            "0102",
            &"07".repeat(32),
            "00000000",
            "35000000",
            "09000000",
            &"05".repeat(24),
            "048968960f5b6d166905af3b57cddcea8ea035d244a43f27ea",
        ];
        assert_eq!(digits(sealed(&none).as_bytes()), expected.concat());
    }

    #[test]
    fn an_opened_record_equals_the_plain_record() {
        for plain in [plain(), Record::not_kept(FINGERPRINT, StatusCode::OK)] {
            let sealed = sealed(&plain);
            let stored = Record::decode(sealed.as_bytes().clone()).expect("a store reads it");
            assert_eq!(
                (stored.fingerprint(), stored.is_kept()),
                (FINGERPRINT, false)
            );
            // While others have the bytes, and then in place.
            let shared = stored.clone();
            assert_eq!(open(shared, ID, &keys()), Ok(plain.clone()));
            drop(sealed);
            assert_eq!(open(stored, ID, &keys()), Ok(plain));
        }
    }

    #[test]
    fn a_flipped_bit_never_opens() {
        let sealed = sealed(&plain());
        for bit in 0..sealed.as_bytes().len() * 8 {
            let mut bytes = sealed.as_bytes().to_vec();
            bytes[bit / 8] ^= 1 << (bit % 8);
            let opened = Record::decode(bytes.into()).and_then(|it| open(it, ID, &keys()));
            assert!(opened.is_err(), "bit {bit} gave {opened:?}");
        }
    }

    /// Also when the length in the head fits the cut.
    #[test]
    fn a_cut_record_never_opens() {
        let sealed = sealed(&plain());
        for len in 0..sealed.as_bytes().len() {
            let mut bytes = sealed.as_bytes()[..len].to_vec();
            assert!(Record::decode(bytes.clone().into()).is_err());
            let Some(body) = len.checked_sub(record::HEAD) else {
                continue;
            };
            let body = u32::try_from(body).expect("short").to_le_bytes();
            bytes[record::HEAD - 4..record::HEAD].copy_from_slice(&body);
            let opened = Record::decode(bytes.into()).and_then(|it| open(it, ID, &keys()));
            assert!(opened.is_err(), "cut to {len} gave {opened:?}");
        }
    }

    #[test]
    fn a_record_opens_only_under_its_id_and_with_its_key() {
        let sealed = sealed(&plain());
        let moved = open(sealed.clone(), RecordId::from_bytes([4; 32]), &keys());
        assert_eq!(moved, Err(DecodeError::NotAuthentic));
        let wrong = open(sealed.clone(), ID, &Keys::new().primary(9, [1; 32]));
        assert_eq!(wrong, Err(DecodeError::NotAuthentic));
        let missing = open(sealed, ID, &Keys::new().primary(8, [1; 32]));
        assert_eq!(missing, Err(DecodeError::MissingKey(9)));
        assert_eq!(open(plain(), ID, &keys()), Err(DecodeError::NotSealed));
    }
}

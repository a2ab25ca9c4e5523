//! Checks that a stored record is read unchanged, or not at all.

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use proptest::collection::vec;
use proptest::prelude::*;

use crate::request::fingerprint::Fingerprint;
use crate::store::Record;

prop_compose! {
    fn record()(
        is_kept in prop::bool::weighted(0.9),
        fingerprint in any::<[u8; 32]>(),
        status in 100_u16..1000,
        lines in vec(("[a-z][a-z0-9-]{0,7}", "[ -~]{0,12}"), 0..5),
        body in vec(any::<u8>(), 0..40),
    ) -> Record {
        let fingerprint = Fingerprint::from_bytes(fingerprint);
        let status = StatusCode::from_u16(status).expect("a status");
        if !is_kept {
            return Record::not_kept(fingerprint, status);
        }
        let line = |(name, value): (String, String)| {
            let name = name.parse::<HeaderName>().expect("a name");
            (name, value.parse::<HeaderValue>().expect("a value"))
        };
        let mut headers = HeaderMap::new();
        for (name, value) in lines.into_iter().map(line) {
            headers.append(name, value);
        }
        Record::answer(fingerprint, status, &headers, &body).expect("the record fits")
    }
}

/// Returns the separate parts of a recorded response.
fn parts(record: &Record) -> [Vec<u8>; 5] {
    let headers = record.headers();
    let (mut names, mut values) = (Vec::new(), Vec::new());
    for (name, value) in &headers {
        names.extend_from_slice(name.as_str().as_bytes());
        names.push(0);
        values.extend_from_slice(value.as_bytes());
        values.push(0);
    }
    let kept = u8::from(record.is_kept());
    let [low, high] = record.status().as_u16().to_le_bytes();
    let fingerprint = record.fingerprint().as_bytes().to_vec();
    [
        vec![kept, low, high],
        fingerprint,
        names,
        values,
        record.body().to_vec(),
    ]
}

proptest! {
    #![proptest_config(super::config())]

    #[test]
    fn a_record_is_decoded_unchanged(record in record()) {
        let again = Record::decode(record.as_bytes().clone()).expect("whole");
        prop_assert_eq!(parts(&again), parts(&record));
    }

    #[test]
    fn a_truncated_or_extended_record_is_not_decoded(record in record(), more in vec(any::<u8>(), 1..9)) {
        let bytes = record.as_bytes();
        for len in 0..bytes.len() {
            prop_assert!(Record::decode(bytes.slice(..len)).is_err(), "cut to {}", len);
        }
        prop_assert!(Record::decode(Bytes::from([bytes, &more[..]].concat())).is_err());
    }

    /// A flipped bit never moves the border between two parts. Either decoding fails, or only the
    /// part with the bit changes.
    #[test]
    fn a_flipped_bit_is_detected_or_changes_only_its_part(record in record()) {
        let before = parts(&record);
        for bit in 0..record.as_bytes().len() * 8 {
            let mut bytes = record.as_bytes().to_vec();
            bytes[bit / 8] ^= 1 << (bit % 8);
            let Ok(flipped) = Record::decode(bytes.into()) else {
                continue;
            };
            let after = parts(&flipped);
            let changed = before.iter().zip(&after).filter(|(one, other)| one != other).count();
            // If a changed name equals another name, its value may move among the values.
            let is_name = before[2] != after[2];
            prop_assert!(changed <= 1 + usize::from(is_name), "bit {} changed {:?}", bit, after);
            let lengths = |parts: &[Vec<u8>; 5]| parts.each_ref().map(Vec::len);
            prop_assert_eq!(lengths(&after), lengths(&before), "bit {}", bit);
        }
    }
}

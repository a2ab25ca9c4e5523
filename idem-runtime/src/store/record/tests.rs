//! The form of a record, and bytes that are not a record.

use super::*;

const FINGERPRINT: Fingerprint = Fingerprint::from_bytes([7; 32]);

fn record() -> Record {
    let mut headers = HeaderMap::new();
    headers.append("x-multi", HeaderValue::from_static("a"));
    headers.append("location", HeaderValue::from_static("/trades/1"));
    headers.append(
        "x-multi",
        HeaderValue::from_bytes(b"\xfcb").expect("obs-text"),
    );
    let body: Vec<u8> = (0..=255).collect();
    Record::answer(FINGERPRINT, StatusCode::CREATED, &headers, &body).expect("fits")
}

#[test]
fn a_decoded_record_equals_the_encoded_response() {
    let record = Record::decode(record().as_bytes().clone()).expect("whole");
    assert_eq!(record.fingerprint(), FINGERPRINT);
    assert_eq!(record.status(), StatusCode::CREATED);
    assert!(record.is_kept());
    let headers = record.headers();
    let multi: Vec<_> = headers
        .get_all("x-multi")
        .iter()
        .map(HeaderValue::as_bytes)
        .collect();
    assert_eq!(multi, [&b"a"[..], b"\xfcb"]);
    assert_eq!(headers["location"], "/trades/1");
    assert_eq!(record.body(), (0..=255).collect::<Vec<u8>>());
}

#[test]
fn a_record_without_a_response_has_only_a_status() {
    let record = Record::not_kept(FINGERPRINT, StatusCode::OK);
    let record = Record::decode(record.as_bytes().clone()).expect("whole");
    assert!(!record.is_kept());
    assert_eq!(record.status(), StatusCode::OK);
    assert!(record.headers().is_empty() && record.body().is_empty());
}

#[test]
fn a_truncated_record_is_damaged() {
    let record = record();
    for len in 0..record.as_bytes().len() {
        let cut = Record::decode(record.as_bytes().slice(..len));
        assert_eq!(cut.err(), Some(DecodeError::Damaged), "cut to {len} bytes");
    }
}

#[test]
fn decoding_another_version_reports_that_version() {
    let mut bytes = record().as_bytes().to_vec();
    bytes[0] = 9;
    assert_eq!(
        Record::decode(bytes.into()).err(),
        Some(DecodeError::Version(9))
    );
}

/// Decodes a record with the header `name: value`, in which `bytes` overwrite the content at
/// `at`.
fn changed(at: usize, bytes: &[u8]) -> Result<Record, DecodeError> {
    let mut headers = HeaderMap::new();
    headers.append("name", HeaderValue::from_static("value"));
    let record = Record::answer(FINGERPRINT, StatusCode::OK, &headers, b"{}").expect("fits");
    let mut changed = record.as_bytes().to_vec();
    changed[at..at + bytes.len()].copy_from_slice(bytes);
    Record::decode(changed.into())
}

#[test]
fn impossible_contents_are_damaged() {
    const NAME: usize = HEAD + LINE_HEAD;
    assert!(changed(NAME, b"nama").is_ok());
    for (what, at, bytes) in [
        ("unknown kind", 1, &[3][..]),
        ("a status in a sealed record", 1, &[SEALED]),
        ("a response in a record without a response", 1, &[NOT_KEPT]),
        ("a status below 100", STATUS, &[99, 0]),
        ("a status above 999", STATUS, &[0xe8, 3]),
        ("an invalid header name", NAME, b"na:e"),
        ("an invalid header value", NAME + 4, b"va\nue"),
    ] {
        assert_eq!(
            changed(at, bytes).err(),
            Some(DecodeError::Damaged),
            "{what}"
        );
    }
}

#[test]
fn more_than_16384_header_lines_are_refused() {
    let mut headers = HeaderMap::new();
    for _ in 0..MAX_LINES {
        headers.append("a", HeaderValue::from_static("b"));
    }
    let record = |headers: &HeaderMap| Record::answer(FINGERPRINT, StatusCode::OK, headers, b"");
    let most = record(&headers).expect("it just fits").as_bytes().clone();
    assert!(Record::decode(most.clone()).is_ok());
    headers.append("a", HeaderValue::from_static("b"));
    assert_eq!(record(&headers), None);
    // `Record::answer` never writes more lines than the maximum, so `decode` accepts no more.
    let mut more = most.to_vec();
    more.extend_from_slice(b"\x01\0\x01\0\0\0ab");
    more[LINES..BODY_LEN].copy_from_slice(&(MAX_LINES + 1).to_le_bytes());
    assert_eq!(
        Record::decode(more.into()).err(),
        Some(DecodeError::Damaged)
    );
}

#[test]
fn a_declared_length_beyond_the_end_is_damaged() {
    let mut bytes = Record::not_kept(FINGERPRINT, StatusCode::OK)
        .as_bytes()
        .to_vec();
    bytes[1] = RESPONSE;
    bytes[LINES..BODY_LEN].copy_from_slice(&1_u16.to_le_bytes());
    bytes[BODY_LEN..HEAD].copy_from_slice(&[0xff; 4]);
    bytes.extend_from_slice(&[0xff; 6]);
    assert_eq!(
        Record::decode(bytes.into()).err(),
        Some(DecodeError::Damaged)
    );
}

/// The next version must read these bytes. A change of the form needs a new version number.
#[test]
fn the_form_of_a_record_never_changes() {
    let mut headers = HeaderMap::new();
    headers.append("a", HeaderValue::from_static("b"));
    let record = Record::answer(FINGERPRINT, StatusCode::CREATED, &headers, b"{}").expect("fits");
    let mut expected = vec![1, 0];
    expected.extend_from_slice(&[7; 32]);
    expected.extend_from_slice(&[
        201, 0, 1, 0, 2, 0, 0, 0, 1, 0, 1, 0, 0, 0, b'a', b'b', b'{', b'}',
    ]);
    assert_eq!(record.as_bytes(), &expected);

    let not_kept = Record::not_kept(FINGERPRINT, StatusCode::OK);
    let mut expected = vec![1, 1];
    expected.extend_from_slice(&[7; 32]);
    expected.extend_from_slice(&[200, 0, 0, 0, 0, 0, 0, 0]);
    assert_eq!(not_kept.as_bytes(), &expected);
}

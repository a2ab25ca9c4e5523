//! The record decoder reads what a store gives back.

use bytes::Bytes;
use idem_runtime::store::Record;

/// What decodes is a whole record: written anew it holds the same, and less of it is none.
pub fn record(input: &[u8]) {
    let Ok(record) = Record::decode(Bytes::copy_from_slice(input)) else {
        return;
    };
    let (fingerprint, status) = (record.fingerprint(), record.status());
    let (headers, body) = (record.headers(), record.body());
    let again = if record.is_kept() {
        Record::answer(fingerprint, status, &headers, &body).expect("it was one")
    } else {
        assert!(headers.is_empty() && body.is_empty());
        Record::not_kept(fingerprint, status)
    };
    let again = Record::decode(again.as_bytes().clone()).expect("it was just written");
    assert_eq!(again.fingerprint(), fingerprint);
    assert_eq!(
        (again.status(), again.headers(), again.body()),
        (status, headers, body)
    );
    assert_eq!(again.is_kept(), record.is_kept());
    // The same lines, though perhaps in another order.
    assert_eq!(again.as_bytes().len(), input.len());
    for cut in [0, 1, 41, input.len() / 2, input.len() - 1] {
        assert!(Record::decode(Bytes::copy_from_slice(&input[..cut])).is_err());
    }
    assert!(Record::decode([input, b"x"].concat().into()).is_err());
}

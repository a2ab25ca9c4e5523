//! Fuzzes the record decoder, which reads bytes from a store.

use bytes::Bytes;
use idem_runtime::store::Record;

/// Bytes that decode are a whole record. Encoding that record again keeps its contents, and a shorter
/// input does not decode.
pub fn record(input: &[u8]) {
    let Ok(record) = Record::decode(Bytes::copy_from_slice(input)) else {
        return;
    };
    if input[1] == 2 {
        // The target `sealed` opens these records.
        return;
    }
    let (fingerprint, status) = (record.fingerprint(), record.status());
    let (headers, body) = (record.headers(), record.body());
    let again = if record.is_kept() {
        Record::answer(fingerprint, status, &headers, &body)
            .expect("the record was decoded from bytes")
    } else {
        assert!(headers.is_empty() && body.is_empty());
        Record::not_kept(fingerprint, status)
    };
    let again = Record::decode(again.as_bytes().clone()).expect("the record was just encoded");
    assert_eq!(again.fingerprint(), fingerprint);
    assert_eq!(
        (again.status(), again.headers(), again.body()),
        (status, headers, body)
    );
    assert_eq!(again.is_kept(), record.is_kept());
    // The same header lines, possibly in a different order.
    assert_eq!(again.as_bytes().len(), input.len());
    for cut in [0, 1, 41, input.len() / 2, input.len() - 1] {
        assert!(Record::decode(Bytes::copy_from_slice(&input[..cut])).is_err());
    }
    assert!(Record::decode([input, b"x"].concat().into()).is_err());
}

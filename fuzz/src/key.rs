//! Fuzzes the key header, which any client can send.

use std::pin::pin;
use std::task::{Context, Poll, Waker};

use axum::extract::OptionalFromRequestParts;
use http::{HeaderValue, Request};
use idem_runtime::{Dialect, Idempotency, IdempotencyKey, KeySyntax};

const LENIENT: KeySyntax = KeySyntax::Lenient;
const STRICT: KeySyntax = KeySyntax::StructuredString;

/// A key is accepted as a whole or refused, and the syntaxes agree with each other. Each line of the
/// input is one header line.
pub fn key(input: &[u8]) {
    let lines: Vec<_> = input.split(|byte| *byte == b'\n').collect();
    let Some(lenient) = read(&lines, LENIENT) else {
        return;
    };
    let strict = read(&lines, STRICT).expect("these are header values");
    let raw = read(&lines, KeySyntax::Raw).expect("these are header values");
    let [line] = lines[..] else {
        assert!((lenient, strict, raw).eq(&(Err(()), Err(()), Err(()))));
        return;
    };
    for key in [&lenient, &strict, &raw].into_iter().flatten() {
        assert!(!key.is_empty() && key.len() <= 255);
        // A key is never longer than the header value.
        assert!(key.len() <= line.len());
    }
    match (&lenient, &strict) {
        // The lenient syntax accepts every key of the strict syntax and reads the same key.
        (lenient, Ok(strict)) => assert_eq!(lenient.as_ref(), Ok(strict)),
        // The lenient syntax also accepts a key without quotes, which equals the same key in quotes.
        (Ok(bare), Err(())) => {
            assert_eq!(bare.as_bytes(), line.trim_ascii());
            let quoted = quote(bare);
            assert_eq!(read(&[&quoted], LENIENT), Some(Ok(bare.clone())));
            assert_eq!(read(&[&quoted], STRICT), Some(Ok(bare.clone())));
        }
        (Err(()), Err(())) => {}
    }
}

fn quote(key: &str) -> Vec<u8> {
    let escaped = key.replace('\\', "\\\\").replace('"', "\\\"");
    format!("\"{escaped}\"").into_bytes()
}

/// Returns the key of a request with these header lines, or `None` when no request can have them.
fn read(lines: &[&[u8]], syntax: KeySyntax) -> Option<Result<String, ()>> {
    let dialect = Dialect::default().key_syntax(syntax);
    let idem = Idempotency::builder().dialect(dialect).build();
    let mut request = Request::new(());
    request.extensions_mut().insert(idem);
    for line in lines {
        let value = HeaderValue::from_bytes(line).ok()?;
        request.headers_mut().append("idempotency-key", value);
    }
    let (mut parts, ()) = request.into_parts();
    let key = <IdempotencyKey as OptionalFromRequestParts<()>>::from_request_parts(&mut parts, &());
    match pin!(key).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(Ok(key)) => Some(Ok(key.expect("there is a header").as_str().to_owned())),
        Poll::Ready(Err(problem)) => {
            assert_eq!(problem.code(), "idempotency_key_invalid");
            Some(Err(()))
        }
        Poll::Pending => unreachable!("a key is read at once"),
    }
}

//! The least that a team would write by hand: a claim in a map, a fingerprint and one insert into moka.
//!
//! This code has no leases, no protection against disconnects, no waiting, no header rules and no
//! tracing. It shows what these features cost. It is not an example to follow.

use std::collections::HashSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::body::Body;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use http_body_util::BodyExt;
use sha2::{Digest, Sha256};

use super::contenders::book;

type Id = [u8; 32];

#[derive(Clone)]
pub(crate) struct Minimum(Arc<Inner>);

struct Inner {
    claims: Box<[Mutex<HashSet<Id>>]>,
    records: moka::sync::Cache<Id, Arc<Kept>>,
}

struct Kept {
    fingerprint: Id,
    status: StatusCode,
    body: Bytes,
}

impl Default for Minimum {
    fn default() -> Self {
        Self(Arc::new(Inner {
            claims: (0..64).map(|_| Mutex::default()).collect(),
            records: moka::sync::Cache::builder()
                .time_to_live(Duration::from_secs(24 * 60 * 60))
                .build(),
        }))
    }
}

pub(crate) async fn handler(
    State(minimum): State<Minimum>,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let Some(key) = headers.get("idempotency-key") else {
        return run(&body);
    };
    let Some(token) = headers.get(header::AUTHORIZATION) else {
        return StatusCode::UNAUTHORIZED.into_response();
    };
    let mut hasher = Sha256::new();
    hasher.update(token.as_bytes());
    hasher.update([0]);
    hasher.update(key.as_bytes());
    let id: Id = hasher.finalize().into();
    let fingerprint: Id = Sha256::digest(&body).into();
    let shard = &minimum.0.claims[usize::from(id[0]) % 64];
    {
        let mut claims = shard.lock().expect("no panic");
        if let Some(kept) = minimum.0.records.get(&id) {
            return replay(&kept, fingerprint);
        }
        if !claims.insert(id) {
            return StatusCode::CONFLICT.into_response();
        }
    }
    let (parts, body) = run(&body).into_parts();
    let body = body.collect().await.expect("a body").to_bytes();
    let kept = Kept {
        fingerprint,
        status: parts.status,
        body: body.clone(),
    };
    minimum.0.records.insert(id, Arc::new(kept));
    shard.lock().expect("no panic").remove(&id);
    Response::from_parts(parts, Body::from(body))
}

fn run(body: &Bytes) -> Response {
    match serde_json::from_slice(body) {
        Ok(order) => book(order).into_response(),
        Err(_) => StatusCode::BAD_REQUEST.into_response(),
    }
}

fn replay(kept: &Kept, fingerprint: Id) -> Response {
    if kept.fingerprint != fingerprint {
        return StatusCode::CONFLICT.into_response();
    }
    let json = [(header::CONTENT_TYPE, "application/json")];
    (kept.status, json, kept.body.clone()).into_response()
}

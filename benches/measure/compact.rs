//! What is possible in the handler's place: a claim in a sharded map, two digests, and one insert of the
//! finished record, which is one buffer.
//!
//! Unlike the minimum, it extracts the argument of the handler, keeps every header, and hashes nothing
//! twice. It has no leases, no guard against disconnects, no waiting, no header rules, no tracing and no
//! choice of scope. The records are in moka, or in plain sharded maps that nothing expires from. It is not an
//! example to follow.

use std::collections::{HashMap, HashSet};
use std::hash::{BuildHasherDefault, Hasher};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use axum::body::{Body, to_bytes};
use axum::extract::{FromRequest, Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header, request};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use axum::{Extension, Json, Router};
use bytes::Bytes;
use http_body_util::BodyExt;
use sha2::{Digest, Sha256};

use super::contenders::book;

type Id = [u8; 32];
type Hash = BuildHasherDefault<Identity>;

const SHARDS: usize = 64;
/// The longest body of a request, as in axum.
const LONGEST: usize = 2 << 20;
/// The fingerprint, the status, and the number of header lines.
const HEAD: usize = 32 + 2 + 2;

/// The key digest is already a hash.
#[derive(Default)]
pub(crate) struct Identity(u64);

impl Hasher for Identity {
    fn write(&mut self, bytes: &[u8]) {
        if let Some((first, _)) = bytes.split_first_chunk() {
            self.0 = u64::from_le_bytes(*first);
        }
    }

    fn write_usize(&mut self, _: usize) {}

    fn finish(&self) -> u64 {
        self.0
    }
}

/// Keeps finished records.
pub(crate) trait Records: Default + Send + Sync + 'static {
    fn find(&self, id: &Id) -> Option<Bytes>;

    fn keep(&self, id: Id, record: Bytes);
}

pub(crate) struct Moka(moka::sync::Cache<Id, Bytes, Hash>);

impl Default for Moka {
    fn default() -> Self {
        let builder = moka::sync::Cache::builder();
        let day = Duration::from_secs(24 * 60 * 60);
        Self(builder.time_to_live(day).build_with_hasher(Hash::default()))
    }
}

impl Records for Moka {
    fn find(&self, id: &Id) -> Option<Bytes> {
        self.0.get(id)
    }

    fn keep(&self, id: Id, record: Bytes) {
        self.0.insert(id, record);
    }
}

pub(crate) struct Maps(Box<[Mutex<HashMap<Id, Bytes, Hash>>]>);

impl Default for Maps {
    fn default() -> Self {
        Self((0..SHARDS).map(|_| Mutex::default()).collect())
    }
}

impl Records for Maps {
    fn find(&self, id: &Id) -> Option<Bytes> {
        shard(&self.0, id).get(id).cloned()
    }

    fn keep(&self, id: Id, record: Bytes) {
        shard(&self.0, &id).insert(id, record);
    }
}

fn shard<'a, T>(shards: &'a [Mutex<T>], id: &Id) -> MutexGuard<'a, T> {
    let shard = &shards[usize::from(id[31]) % SHARDS];
    shard.lock().expect("no panic")
}

pub(crate) struct Compact<R> {
    claims: Box<[Mutex<HashSet<Id, Hash>>]>,
    records: R,
}

impl<R: Records> Compact<R> {
    fn shared() -> Arc<Self> {
        Arc::new(Self {
            claims: (0..SHARDS).map(|_| Mutex::default()).collect(),
            records: R::default(),
        })
    }
}

/// A service whose records are in `R`.
pub(crate) fn router<R: Records>() -> Router {
    Router::new()
        .route("/trades", post(handler::<R>))
        .with_state(Compact::<R>::shared())
}

/// The same service, which gets its records from a layer. A layer can pass them on only in the extensions of
/// the request.
pub(crate) fn layered<R: Records>() -> Router {
    let handler = |Extension(compact): Extension<Arc<Compact<R>>>, request: Request| {
        handler(State(compact), request)
    };
    Router::new()
        .route("/trades", post(handler))
        .layer(Extension(Compact::<R>::shared()))
}

async fn handler<R: Records>(State(compact): State<Arc<Compact<R>>>, request: Request) -> Response {
    let headers = request.headers();
    let (Some(key), token) = (
        headers.get("idempotency-key").cloned(),
        headers.get(header::AUTHORIZATION).cloned(),
    ) else {
        return run(request).await;
    };
    let Some(token) = token else {
        return StatusCode::UNAUTHORIZED.into_response();
    };
    // In a box, so that a request without a key has a short future.
    Box::pin(once(compact, request, key, token)).await
}

async fn once<R: Records>(
    compact: Arc<Compact<R>>,
    request: Request,
    key: HeaderValue,
    token: HeaderValue,
) -> Response {
    let (parts, body) = request.into_parts();
    let Ok(body) = to_bytes(body, LONGEST).await else {
        return StatusCode::BAD_REQUEST.into_response();
    };
    let fingerprint = fingerprint(&parts, &body);
    let id = Sha256::new()
        .chain_update(token.as_bytes())
        .chain_update([0]);
    let id: Id = id.chain_update(key.as_bytes()).finalize().into();
    {
        let mut claims = shard(&compact.claims, &id);
        if let Some(record) = compact.records.find(&id) {
            return replay(&record, &fingerprint);
        }
        if !claims.insert(id) {
            return StatusCode::CONFLICT.into_response();
        }
    }
    let response = run(Request::from_parts(parts, Body::from(body))).await;
    let (parts, body) = response.into_parts();
    let Ok(body) = body.collect().await else {
        return StatusCode::INTERNAL_SERVER_ERROR.into_response();
    };
    let body = body.to_bytes();
    let record = record(&fingerprint, parts.status, &parts.headers, &body);
    compact.records.keep(id, record);
    shard(&compact.claims, &id).remove(&id);
    Response::from_parts(parts, Body::from(body))
}

async fn run(request: Request) -> Response {
    match Json::from_request(request, &()).await {
        Ok(Json(order)) => book(order).into_response(),
        Err(rejection) => rejection.into_response(),
    }
}

/// The body comes first, and the short parts follow in one piece.
fn fingerprint(parts: &request::Parts, body: &[u8]) -> Id {
    let mut digest = Sha256::new_with_prefix(body);
    digest.update(parts.method.as_str());
    digest.update(parts.uri.path());
    digest.finalize().into()
}

fn record(fingerprint: &Id, status: StatusCode, headers: &HeaderMap, body: &[u8]) -> Bytes {
    let lines = headers
        .iter()
        .map(|(name, value)| 4 + name.as_str().len() + value.len());
    let mut record = Vec::with_capacity(HEAD + lines.sum::<usize>() + body.len());
    record.extend_from_slice(fingerprint);
    record.extend_from_slice(&status.as_u16().to_le_bytes());
    record.extend_from_slice(&length(headers.len()));
    for (name, value) in headers {
        record.extend_from_slice(&length(name.as_str().len()));
        record.extend_from_slice(&length(value.len()));
        record.extend_from_slice(name.as_str().as_bytes());
        record.extend_from_slice(value.as_bytes());
    }
    record.extend_from_slice(body);
    record.into()
}

fn length(bytes: usize) -> [u8; 2] {
    u16::try_from(bytes).expect("a short header").to_le_bytes()
}

fn replay(record: &Bytes, fingerprint: &Id) -> Response {
    if record[..32] != fingerprint[..] {
        return StatusCode::CONFLICT.into_response();
    }
    let number = |at: usize| usize::from(u16::from_le_bytes([record[at], record[at + 1]]));
    let mut headers = HeaderMap::with_capacity(4);
    let mut at = HEAD;
    for _ in 0..number(34) {
        let (name, value) = (at + 4, at + 4 + number(at));
        at = value + number(at + 2);
        let name = HeaderName::from_bytes(&record[name..value]).expect("a name");
        let value = HeaderValue::from_maybe_shared(record.slice(value..at)).expect("a value");
        headers.append(name, value);
    }
    let mut response = Response::new(Body::from(record.slice(at..)));
    let status = u16::try_from(number(32)).expect("two bytes");
    *response.status_mut() = StatusCode::from_u16(status).expect("a status");
    *response.headers_mut() = headers;
    response
}

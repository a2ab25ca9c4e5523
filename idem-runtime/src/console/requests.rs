//! Decides what each request to the console gets.

use axum::body::{Body, to_bytes};
use axum::extract::{OriginalUri, Request, State};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use http::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, HeaderName, HeaderValue, REFERRER_POLICY,
    X_CONTENT_TYPE_OPTIONS,
};
use http::request::Parts;
use http::{Method, StatusCode};
use serde_json::Value;

use super::access::Access;
use super::refusal::{Refusal, as_json};
use super::settings::Console;
use super::{api, assets, change};

/// Scripts, styles and requests of this origin only: no inline script, no frame, no form.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; \
    img-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// The longest body of a change.
const LONGEST_BODY: usize = 2 << 20;

/// Handles every request to the console.
pub(super) async fn handle(State(console): State<Console>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let mut response = match (console.access)(&parts) {
        _ if !console.serves(&parts) => {
            let why =
                "this console is not served under this host name (`Console::hosts`)".to_owned();
            Refusal(StatusCode::MISDIRECTED_REQUEST, why).into_response()
        }
        Access::Denied => {
            let why = "you may not see this console".to_owned();
            Refusal(StatusCode::FORBIDDEN, why).into_response()
        }
        access => respond(&console, access, &parts, body).await,
    };
    for (name, value) in [
        (CONTENT_SECURITY_POLICY, POLICY),
        (X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (REFERRER_POLICY, "no-referrer"),
        (CACHE_CONTROL, "no-store"),
        (HeaderName::from_static("x-robots-tag"), "noindex"),
    ] {
        let value = HeaderValue::from_static(value);
        response.headers_mut().insert(name, value);
    }
    response
}

async fn respond(console: &Console, access: Access, parts: &Parts, body: Body) -> Response {
    let path = parts.uri.path().trim_matches('/');
    let reply = match parts.method {
        Method::GET | Method::HEAD => {
            if path.is_empty() {
                let original = parts.extensions.get::<OriginalUri>();
                return assets::page(original.map_or("", |OriginalUri(uri)| uri.path()));
            }
            if let Some(asset) = assets::asset(path) {
                return asset;
            }
            if is_of_another_site(parts) {
                let why = "only the console's own page may read this (`Sec-Fetch-Site`)".to_owned();
                return Refusal(StatusCode::FORBIDDEN, why).into_response();
            }
            api::get(console, access, path, parts.uri.query().unwrap_or_default()).await
        }
        Method::POST => match posted(parts, body).await {
            Ok(sent) => change::post(console, access, path, &sent).await,
            Err(refusal) => Err(refusal),
        },
        _ => {
            let why = "use GET, or POST for a change".to_owned();
            Err(Refusal(StatusCode::METHOD_NOT_ALLOWED, why))
        }
    };
    reply.map_or_else(IntoResponse::into_response, |value| as_json(&value))
}

/// Whether the page of another site sends this request. A program sends no `Sec-Fetch-Site`, and a person who types the
/// address sends `none`.
fn is_of_another_site(parts: &Parts) -> bool {
    let site = parts.headers.get("sec-fetch-site");
    site.is_some_and(|site| site != "same-origin" && site != "none")
}

/// Reads a POST. Another site cannot send one: the browser names the site in `Sec-Fetch-Site`, and a form cannot send
/// JSON.
async fn posted(parts: &Parts, body: Body) -> Result<Value, Refusal> {
    let site = parts.headers.get("sec-fetch-site");
    if site.is_none_or(|site| site != "same-origin") {
        let why = "only the console's own page may send this (`Sec-Fetch-Site: same-origin`)";
        return Err(Refusal(StatusCode::FORBIDDEN, why.to_owned()));
    }
    let kind = parts.headers.get(CONTENT_TYPE);
    if kind.is_none_or(|kind| kind != "application/json") {
        let why = "send `application/json`".to_owned();
        return Err(Refusal(StatusCode::UNSUPPORTED_MEDIA_TYPE, why));
    }
    let body: Bytes = to_bytes(body, LONGEST_BODY).await.map_err(|_| {
        let why = "the body is too long, or was cut off".to_owned();
        Refusal(StatusCode::PAYLOAD_TOO_LARGE, why)
    })?;
    serde_json::from_slice(&body).map_err(|_| Refusal::bad("the body is not JSON"))
}

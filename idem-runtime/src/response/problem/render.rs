//! Renders a problem as a response.

use std::fmt::Write as _;

use axum::body::Body;
use axum::response::{IntoResponse, Response};
use http::{HeaderName, HeaderValue, StatusCode, header};

use super::Problem;
use super::kind::Kind;
use crate::settings::dialect::ProblemFormat;

impl Problem {
    /// Renders the problem in the format of the dialect.
    pub(crate) fn render(&self) -> Response {
        let (content_type, body) = match self.format {
            ProblemFormat::ProblemJson => ("application/problem+json", self.problem_json()),
            ProblemFormat::AgenticCommerce => ("application/json", self.agentic_commerce()),
        };
        let mut response = Response::new(Body::from(body));
        *response.status_mut() = self.status;
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        response
    }

    fn problem_json(&self) -> String {
        let instance = self.record_id.map(|id| id.urn());
        let mut body = object([
            ("type", Some(self.type_uri())),
            ("title", Some(self.title())),
            ("detail", Some(self.detail())),
            ("code", Some(self.code())),
            ("instance", instance.as_deref()),
        ]);
        // A string takes everything.
        let _ = write!(body, ",\"status\":{}}}", self.status.as_u16());
        body
    }

    /// The flat error of the Agentic Commerce Protocol, with the three codes of its section 6.4.
    fn agentic_commerce(&self) -> String {
        let kind = match self.status {
            StatusCode::SERVICE_UNAVAILABLE => "service_unavailable",
            status if status.is_server_error() => "processing_error",
            _ => "invalid_request",
        };
        let mut body = object([
            ("type", Some(kind)),
            ("code", Some(self.rendered_code())),
            ("message", Some(self.detail())),
        ]);
        body.push('}');
        body
    }

    /// Returns the code in the body of the default rendering, which a format may rename.
    pub(crate) fn rendered_code(&self) -> &'static str {
        match (self.format, self.kind) {
            (ProblemFormat::AgenticCommerce, Kind::KeyMissing) => "idempotency_key_required",
            (ProblemFormat::AgenticCommerce, Kind::KeyReused) => "idempotency_conflict",
            (ProblemFormat::AgenticCommerce, Kind::KeyInFlight) => "idempotency_in_flight",
            _ => self.code(),
        }
    }

    /// Adds the headers that belong to the problem, if the rendering has left them out.
    pub(crate) fn complete(&self, response: &mut Response) {
        let mut add = |name: HeaderName, value: HeaderValue| {
            response.headers_mut().entry(name).or_insert(value);
        };
        if let Some(wait) = self.retry_after {
            add(header::RETRY_AFTER, wait.as_secs().max(1).into());
        }
        if self.kind == Kind::TokenMissing {
            add(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        let link = self
            .documentation
            .as_ref()
            .map(|url| format!("<{url}>; rel=\"describedby\""));
        if let Some(Ok(link)) = link.map(HeaderValue::try_from) {
            add(header::LINK, link);
        }
    }
}

/// Writes the members that exist, without the closing brace. In one piece: a tree of values takes an
/// allocation for each name and value.
fn object<const N: usize>(members: [(&str, Option<&str>); N]) -> String {
    let mut json = String::with_capacity(512);
    for (name, text) in members {
        if let Some(text) = text {
            json.push(if json.is_empty() { '{' } else { ',' });
            push_json(&mut json, name);
            json.push(':');
            push_json(&mut json, text);
        }
    }
    json
}

/// Appends a text as a JSON string.
fn push_json(json: &mut String, text: &str) {
    let needs_escape = |byte: u8| byte < b' ' || matches!(byte, b'"' | b'\\');
    if text.bytes().any(needs_escape) {
        // A string can always be written. A `Value` would be written by code that nothing else needs.
        json.push_str(&serde_json::to_string(text).unwrap_or_default());
    } else {
        json.push('"');
        json.push_str(text);
        json.push('"');
    }
}

/// Renders the problem in the default format.
///
/// The response carries the problem as an extension. An installed
/// [`Idempotency`](crate::Idempotency) uses this extension to render the problem again in the
/// format of the service. So an extractor can reject a request without knowing the service.
impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let mut response = self.render();
        self.complete(&mut response);
        response.extensions_mut().insert(self);
        response
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::request::record_id::RecordId;
    use crate::settings::dialect::Dialect;

    #[tokio::test]
    async fn a_problem_is_rendered_as_problem_json() {
        let response = Problem::key_invalid("why").into_response();
        assert_eq!(response.status(), StatusCode::BAD_REQUEST);
        assert_eq!(
            response.headers()[header::CONTENT_TYPE],
            "application/problem+json"
        );
        assert_eq!(response.headers()[header::CACHE_CONTROL], "no-store");
        let body = axum::body::to_bytes(response.into_body(), 1 << 10)
            .await
            .expect("short");
        let body: serde_json::Value = serde_json::from_slice(&body).expect("JSON");
        let expected = serde_json::json!({
            "type": "urn:axum-idem:problem:idempotency_key_invalid",
            "title": "The idempotency key is not valid",
            "status": 400,
            "detail": "why",
            "code": "idempotency_key_invalid",
        });
        assert_eq!(body, expected);
    }

    #[tokio::test]
    async fn the_instance_of_a_problem_leads_to_its_record() {
        let id = RecordId::from_bytes([7; 32]);
        let mut problem = Problem::key_in_flight().about(Some(id));
        problem.detail = "\"quoted\" \\ and\na line".into();
        assert_eq!(problem.record_id(), Some(id));
        let body = axum::body::to_bytes(problem.into_response().into_body(), 1 << 10);
        let body = body.await.expect("short");
        let body: serde_json::Value = serde_json::from_slice(&body).expect("JSON");
        let instance = body["instance"].as_str().expect("a text");
        assert_eq!(instance.parse(), Ok(id));
        assert_eq!(body["detail"], "\"quoted\" \\ and\na line");
        assert_eq!(body["status"], 409);
    }

    #[tokio::test]
    async fn the_agentic_commerce_dialect_renders_flat_errors() {
        async fn rendered(problem: Problem) -> (u16, serde_json::Value) {
            let response = problem.in_dialect(&Dialect::acp()).render();
            let status = response.status().as_u16();
            assert_eq!(response.headers()[header::CONTENT_TYPE], "application/json");
            let body = axum::body::to_bytes(response.into_body(), 1 << 10).await;
            let body = body.expect("short");
            (status, serde_json::from_slice(&body).expect("JSON"))
        }
        for (problem, status, kind, code) in [
            (
                Problem::key_missing(),
                400,
                "invalid_request",
                "idempotency_key_required",
            ),
            (
                Problem::key_reused(),
                422,
                "invalid_request",
                "idempotency_conflict",
            ),
            (
                Problem::key_in_flight(),
                409,
                "invalid_request",
                "idempotency_in_flight",
            ),
            (
                Problem::capacity(),
                503,
                "service_unavailable",
                "idempotency_capacity",
            ),
            (
                Problem::run_timeout(),
                504,
                "processing_error",
                "idempotency_run_timeout",
            ),
        ] {
            let message = problem.detail().to_owned();
            let expected = serde_json::json!({ "type": kind, "code": code, "message": message });
            assert_eq!(rendered(problem).await, (status, expected));
        }
    }
}

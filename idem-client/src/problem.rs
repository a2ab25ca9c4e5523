//! The problem in the body of a refusal.

use serde::Deserialize;

/// The body of a response of type `application/problem+json` (RFC 9457), as the server sends it when it refuses
/// a request.
///
/// A response of [`ClientBuilder`](crate::ClientBuilder) to a write is complete, so `response.bytes()` cannot fail.
///
/// ```
/// use idem_client::{Problem, codes};
///
/// let body = br#"{"type":"about:blank","title":"The key was used","status":409,"code":"idempotency_key_reused"}"#;
/// let problem = Problem::from_slice(body)?;
/// assert_eq!(problem.code.as_deref(), Some(codes::KEY_REUSED));
/// # Ok::<(), serde_json::Error>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[non_exhaustive]
pub struct Problem {
    /// The URI of this kind of problem.
    #[serde(rename = "type", default)]
    pub type_uri: Option<String>,
    /// A short summary of this kind of problem.
    #[serde(default)]
    pub title: Option<String>,
    /// The HTTP status.
    #[serde(default)]
    pub status: Option<u16>,
    /// What is wrong with this request. The Agentic Commerce Protocol calls it `message`.
    #[serde(default, alias = "message")]
    pub detail: Option<String>,
    /// One of [`codes`](crate::codes), or a code of the service.
    #[serde(default)]
    pub code: Option<String>,
    /// The URN of the record. An operator of the service looks the record up by it.
    #[serde(default)]
    pub instance: Option<String>,
}

impl Problem {
    /// Reads the body of a response. Unknown members are ignored.
    ///
    /// # Errors
    ///
    /// If the body is not a JSON object, or one of the members has another type.
    pub fn from_slice(body: &[u8]) -> serde_json::Result<Self> {
        serde_json::from_slice(body)
    }

    /// Returns the code in a body, or `None` when the body is not a problem with a code.
    pub(crate) fn code_in(body: &[u8]) -> Option<String> {
        Self::from_slice(body).ok()?.code
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_problem_has_every_member_that_the_body_has() {
        let body = br#"{"type":"urn:x","title":"t","detail":"d","code":"c","instance":"urn:y","status":409,"more":1}"#;
        let text = |text: &str| Some(text.to_owned());
        let problem = Problem {
            type_uri: text("urn:x"),
            title: text("t"),
            status: Some(409),
            detail: text("d"),
            code: text("c"),
            instance: text("urn:y"),
        };
        assert_eq!(Problem::from_slice(body).expect("a problem"), problem);
        assert_eq!(
            Problem::from_slice(b"{}").expect("JSON"),
            Problem::default()
        );
        let flat = Problem::from_slice(br#"{"type":"invalid_request","code":"c","message":"d"}"#);
        assert_eq!(flat.expect("a problem").detail, text("d"));
        assert!(Problem::from_slice(b"sold out").is_err());
        assert_eq!(Problem::code_in(b"sold out"), None);
    }
}

//! The problem in the body of a refusal.

use serde::{Deserialize, Deserializer};
use serde_json::Value;

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
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Problem {
    /// The URI of this kind of problem.
    pub type_uri: Option<String>,
    /// A short summary of this kind of problem.
    pub title: Option<String>,
    /// The HTTP status.
    pub status: Option<u16>,
    /// What is wrong with this request. The Agentic Commerce Protocol calls it `message`.
    pub detail: Option<String>,
    /// One of [`codes`](crate::codes), or a code of the service.
    pub code: Option<String>,
    /// The URN of the record, by which an operator of the service finds the record.
    pub instance: Option<String>,
}

/// RFC 9457 ignores a member of another type, as if it were absent.
impl<'de> Deserialize<'de> for Problem {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let members = serde_json::Map::deserialize(deserializer)?;
        let text = |name: &str| members.get(name).and_then(Value::as_str).map(str::to_owned);
        let status = members.get("status").and_then(Value::as_u64);
        Ok(Self {
            type_uri: text("type"),
            title: text("title"),
            status: status.and_then(|status| u16::try_from(status).ok()),
            detail: text("detail").or_else(|| text("message")),
            code: text("code"),
            instance: text("instance"),
        })
    }
}

impl Problem {
    /// Reads the body of a response. Unknown members are ignored, and so are members of another type.
    ///
    /// # Errors
    ///
    /// If the body is not a JSON object.
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
        let both = Problem::from_slice(br#"{"detail":"d","message":"m"}"#);
        assert_eq!(both.expect("a problem").detail, text("d"));
        assert!(Problem::from_slice(b"sold out").is_err());
        assert_eq!(Problem::code_in(b"sold out"), None);
    }

    /// RFC 9457, section 3.1. Without the code, the client would not retry.
    #[test]
    fn members_of_another_type_do_not_hide_the_code() {
        for body in [
            r#"{"code":"c","status":"409"}"#,
            r#"{"code":"c","status":-1}"#,
            r#"{"code":"c","detail":["a"]}"#,
            r#"{"code":"c","detail":"d","message":"d"}"#,
            r#"{"type":null,"code":"c"}"#,
        ] {
            assert_eq!(
                Problem::code_in(body.as_bytes()).as_deref(),
                Some("c"),
                "{body}"
            );
        }
        assert_eq!(Problem::code_in(br#"{"code":409}"#), None);
    }
}

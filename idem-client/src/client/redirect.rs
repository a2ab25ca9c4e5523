//! Follows redirects at one origin. `reqwest` would send the key to any origin.

use http::header::{self, HeaderName};
use http::{Method, StatusCode};
use reqwest::{Request, Response, Url};

use crate::failure::{Failure, Reason};
use crate::policy::Policy;

/// How many redirects one try follows.
pub(crate) const MAX_REDIRECTS: usize = 10;

/// The headers that describe a body.
const OF_THE_BODY: [HeaderName; 4] = [
    header::CONTENT_TYPE,
    header::CONTENT_LENGTH,
    header::CONTENT_ENCODING,
    header::TRANSFER_ENCODING,
];

/// Returns the request to which the response redirects, or `None` when the response is the result.
///
/// `sent` is a copy of the request that got the response. `has_key` is `true` when its operation has a key.
///
/// Nothing is sent to another origin: each request gets the default headers of the `reqwest` client, which can be
/// credentials. A caller could take the redirect for the response to its write, so an operation with a key fails. Any
/// other operation gets the redirect.
pub(crate) fn next(
    response: &Response,
    mut sent: Request,
    policy: &Policy,
    has_key: bool,
) -> Result<Option<Request>, Failure> {
    let status = response.status();
    let keeps_method = match status {
        StatusCode::MOVED_PERMANENTLY | StatusCode::FOUND => *sent.method() != Method::POST,
        StatusCode::SEE_OTHER => *sent.method() == Method::HEAD,
        StatusCode::TEMPORARY_REDIRECT | StatusCode::PERMANENT_REDIRECT => true,
        _ => return Ok(None),
    };
    let Some(location) = response.headers().get(header::LOCATION) else {
        return Ok(None);
    };
    let from = sent.url().clone();
    let target = location.to_str().ok().and_then(|to| from.join(to).ok());
    let Some(target) = target.filter(|url| matches!(url.scheme(), "http" | "https")) else {
        return Err(Failure::new(Reason::Redirect));
    };
    if !is_same_origin(&from, &target) {
        return if has_key {
            Err(Failure::new(Reason::Redirect))
        } else {
            Ok(None)
        };
    }
    if !keeps_method {
        *sent.method_mut() = Method::GET;
        *sent.body_mut() = None;
        for name in OF_THE_BODY {
            sent.headers_mut().remove(name);
        }
        // The key belongs to the write.
        sent.headers_mut().remove(&policy.key_header);
    }
    *sent.url_mut() = target;
    Ok(Some(sent))
}

fn is_same_origin(one: &Url, other: &Url) -> bool {
    one.scheme() == other.scheme()
        && one.host() == other.host()
        && one.port_or_known_default() == other.port_or_known_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn redirected(method: Method, status: u16, location: &str) -> Option<Request> {
        next_of(method, status, location, true).expect("a target")
    }

    fn next_of(
        method: Method,
        status: u16,
        location: &str,
        has_key: bool,
    ) -> Result<Option<Request>, Failure> {
        let url = "https://a.example/orders".parse().expect("a URL");
        let mut request = Request::new(method, url);
        *request.body_mut() = Some("tea".into());
        for name in ["idempotency-key", "authorization", "content-type", "x-own"] {
            let value = "v".parse().expect("a header value");
            request.headers_mut().insert(name, value);
        }
        let response = http::Response::builder()
            .status(status)
            .header("location", location)
            .body("")
            .expect("a response");
        next(&response.into(), request, &Policy::default(), has_key)
    }

    fn names(request: &Request) -> Vec<&str> {
        let mut names: Vec<_> = request.headers().keys().map(HeaderName::as_str).collect();
        names.sort_unstable();
        names
    }

    #[test]
    fn nothing_is_sent_to_another_origin() {
        let all = ["authorization", "content-type", "idempotency-key", "x-own"];
        for location in ["/v2", "https://a.example/v2", "https://a.example:443/v2"] {
            let request = redirected(Method::POST, 307, location).expect("a redirect");
            assert_eq!(request.url().as_str(), "https://a.example/v2");
            assert_eq!(request.method(), Method::POST);
            assert!(request.body().is_some());
            assert_eq!(names(&request), all, "{location}");
        }
        for location in [
            "http://a.example/v2",
            "https://a.example:8443/v2",
            "https://b.example/v2",
            "//b.example/v2",
        ] {
            for status in [301, 302, 303, 307, 308] {
                let failed = next_of(Method::POST, status, location, true);
                let failure = failed.expect_err("another origin");
                assert_eq!(failure.reason(), Reason::Redirect, "{location}");
                let unkeyed = next_of(Method::POST, status, location, false);
                assert!(unkeyed.expect("a result").is_none(), "{location}");
            }
        }
    }

    #[test]
    fn a_redirect_to_a_read_sends_neither_body_nor_key() {
        for (method, status) in [
            (Method::POST, 301),
            (Method::POST, 302),
            (Method::POST, 303),
            (Method::PUT, 303),
        ] {
            let request = redirected(method, status, "/v2").expect("a redirect");
            assert_eq!(request.method(), Method::GET);
            assert!(request.body().is_none());
            assert_eq!(names(&request), ["authorization", "x-own"], "{status}");
        }
        let put = redirected(Method::PUT, 302, "/v2").expect("a redirect");
        assert_eq!(put.method(), Method::PUT);
        assert!(put.body().is_some());
        let head = redirected(Method::HEAD, 303, "/v2").expect("a redirect");
        assert_eq!(head.method(), Method::HEAD);
    }

    #[test]
    fn other_responses_are_no_redirects() {
        for status in [200, 300, 304, 404] {
            assert!(redirected(Method::POST, status, "/v2").is_none());
        }
    }

    #[test]
    fn a_target_must_be_a_web_address() {
        let request = || Request::new(Method::GET, "http://a.example/".parse().expect("a URL"));
        for location in ["file:///etc/passwd", "http://[", "javascript:alert(1)"] {
            let response = http::Response::builder().status(302);
            let response = response.header("location", location).body("");
            let response = response.expect("a response").into();
            let failed = next(&response, request(), &Policy::default(), false);
            let failure = failed.expect_err("no target");
            assert_eq!(failure.reason(), Reason::Redirect, "{location}");
        }
    }
}

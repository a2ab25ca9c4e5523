//! The page, its style and its script.

use axum::body::Body;
use axum::response::Response;
use http::header::{CONTENT_TYPE, HeaderValue};

/// The file of a path, or `None`.
pub(super) fn asset(path: &str) -> Option<Response> {
    let (kind, text) = match path {
        "console.css" => (
            "text/css; charset=utf-8",
            include_str!("assets/console.css"),
        ),
        "console.js" => (
            "text/javascript; charset=utf-8",
            include_str!("assets/console.js"),
        ),
        _ => return None,
    };
    Some(file(kind, Body::from(text)))
}

/// The page. `at` is its path as the client knows it, possibly without a prefix that a proxy has removed.
///
/// All URLs are relative to the page. A page without a trailing slash needs its own last segment in them.
pub(super) fn page(at: &str) -> Response {
    let base = match at.rsplit('/').next() {
        None | Some("") => String::new(),
        Some(last) => format!("./{}/", escaped(last)),
    };
    let text = include_str!("assets/console.html").replace("{base}", &base);
    file("text/html; charset=utf-8", Body::from(text))
}

fn file(kind: &'static str, body: Body) -> Response {
    let mut response = Response::new(body);
    let kind = HeaderValue::from_static(kind);
    response.headers_mut().insert(CONTENT_TYPE, kind);
    response
}

/// Escapes a text for an attribute of HTML.
fn escaped(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => safe.push_str("&amp;"),
            '<' => safe.push_str("&lt;"),
            '>' => safe.push_str("&gt;"),
            '"' => safe.push_str("&quot;"),
            '\'' => safe.push_str("&#39;"),
            _ => safe.push(c),
        }
    }
    safe
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_cannot_leave_its_attribute() {
        assert_eq!(escaped("a\"b'c<d>&"), "a&quot;b&#39;c&lt;d&gt;&amp;");
    }
}

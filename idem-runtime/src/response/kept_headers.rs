//! Selects the headers of a response that are recorded.

use http::header::{self, HeaderMap, HeaderName, HeaderValue};

use crate::request::headers;
use crate::response::receipt;

/// The headers that a replay may carry. Repeated headers keep their order.
///
/// Headers that belong to one connection (RFC 9110, section 7.6.1), one moment, or one exchange of
/// credentials are left out. `Idempotency-Degraded`, `Idempotency-Receipt` and the marks of a replay describe one
/// response of one service. So a handler that forwards the response of another service does not record these
/// headers either.
#[derive(Clone, Copy)]
pub(crate) struct KeptHeaders<'a> {
    headers: &'a HeaderMap,
    keeps_set_cookie: bool,
    names_hop_by_hop: bool,
    is_receipt: bool,
}

impl<'a> KeptHeaders<'a> {
    pub(crate) fn new(headers: &'a HeaderMap, keeps_set_cookie: bool) -> Self {
        Self {
            headers,
            keeps_set_cookie,
            names_hop_by_hop: headers::is_there(headers, &header::CONNECTION),
            is_receipt: false,
        }
    }

    /// Leaves out the headers that describe the body, and adds the mark of a receipt.
    pub(crate) fn receipt(self) -> Self {
        Self {
            is_receipt: true,
            ..self
        }
    }

    fn keeps(self, name: &HeaderName) -> bool {
        let is_left_out = is_never_kept(name)
            || (!self.keeps_set_cookie && *name == header::SET_COOKIE)
            || self.is_hop_by_hop(name)
            || (self.is_receipt && receipt::describes_body(name));
        !is_left_out
    }

    /// Returns whether a `Connection` header lists this header.
    fn is_hop_by_hop(self, name: &HeaderName) -> bool {
        if !self.names_hop_by_hop {
            return false;
        }
        for line in self.headers.get_all(header::CONNECTION) {
            for named in line.to_str().unwrap_or_default().split(',') {
                if named.trim().eq_ignore_ascii_case(name.as_str()) {
                    return true;
                }
            }
        }
        false
    }

    pub(crate) fn iter(self) -> impl Iterator<Item = (&'a HeaderName, &'a HeaderValue)> {
        let kept = self.headers.iter();
        kept.filter(move |(name, _)| self.keeps(name))
            .chain(self.is_receipt.then(receipt::mark))
    }
}

fn is_never_kept(name: &HeaderName) -> bool {
    matches!(
        name.as_str(),
        "connection"
            | "keep-alive"
            | "proxy-connection"
            | "te"
            | "trailer"
            | "transfer-encoding"
            | "upgrade"
            | "content-length"
            | "date"
            | "www-authenticate"
            | "proxy-authenticate"
            | "proxy-authorization"
            | "authentication-info"
            | "proxy-authentication-info"
            | "idempotency-degraded"
            | "idempotency-receipt"
            | "idempotency-replayed"
            | "idempotent-replayed"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_of_one_connection_moment_or_login_are_not_recorded() {
        for name in [
            "connection",
            "keep-alive",
            "proxy-connection",
            "te",
            "trailer",
            "transfer-encoding",
            "upgrade",
            "content-length",
            "date",
            "www-authenticate",
            "proxy-authenticate",
            "proxy-authorization",
            "authentication-info",
            "proxy-authentication-info",
            "idempotency-degraded",
            "idempotency-receipt",
            "idempotency-replayed",
            "idempotent-replayed",
            "set-cookie",
        ] {
            let name = HeaderName::from_static(name);
            let headers = HeaderMap::from_iter([
                (name.clone(), HeaderValue::from_static("x")),
                (header::LOCATION, HeaderValue::from_static("/1")),
            ]);
            let kept: Vec<_> = KeptHeaders::new(&headers, false).iter().collect();
            assert_eq!(kept, [(&header::LOCATION, &headers["location"])], "{name}");
        }
    }

    #[test]
    fn headers_named_by_any_connection_line_are_hop_by_hop() {
        let mut headers = HeaderMap::new();
        for (name, value) in [
            ("connection", "close, X-Hop"),
            ("connection", "keep-alive"),
            ("connection", "x-other, x-third"),
            ("x-hop", "1"),
            ("x-other", "2"),
            ("x-third", "3"),
            ("set-cookie", "a=b"),
            ("date", "now"),
            ("www-authenticate", "Bearer"),
            ("location", "/1"),
        ] {
            headers.append(name, HeaderValue::from_static(value));
        }
        let kept = |keeps_set_cookie| -> Vec<_> {
            let kept = KeptHeaders::new(&headers, keeps_set_cookie);
            kept.iter().map(|(name, _)| name.as_str()).collect()
        };
        assert_eq!(kept(false), ["location"]);
        assert_eq!(kept(true), ["set-cookie", "location"]);
    }
}

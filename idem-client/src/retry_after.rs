//! The header `Retry-After`, which contains seconds or a date.

use std::time::{Duration, SystemTime};

use http::header::{self, HeaderMap, HeaderName};

/// Returns how long the server asks the client to wait.
///
/// A date is compared with the `Date` of the same response, because the clocks of server and client may differ.
/// Without `Date`, it is compared with `now`. A date in the past is no wait. A number of seconds that is too large is the
/// longest wait.
pub(crate) fn retry_after(headers: &HeaderMap, now: SystemTime) -> Option<Duration> {
    let text = headers.get(header::RETRY_AFTER)?.to_str().ok()?.trim();
    if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
        return Some(text.parse().map_or(Duration::MAX, Duration::from_secs));
    }
    let until = httpdate::parse_http_date(text).ok()?;
    let from = date(headers, header::DATE).unwrap_or(now);
    Some(until.duration_since(from).unwrap_or_default())
}

fn date(headers: &HeaderMap, name: HeaderName) -> Option<SystemTime> {
    httpdate::parse_http_date(headers.get(name)?.to_str().ok()?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_forms_of_retry_after_are_read() {
        let now = httpdate::parse_http_date("Sun, 06 Nov 1994 08:49:00 GMT").expect("a date");
        let wait = |pairs: &[(HeaderName, &str)]| {
            let pairs = pairs.iter().map(|(name, text)| {
                let text = text.parse().expect("a header value");
                (name.clone(), text)
            });
            retry_after(&pairs.collect(), now).map(|wait| wait.as_secs())
        };
        let after = |text| wait(&[(header::RETRY_AFTER, text)]);
        assert_eq!(after("43"), Some(43));
        assert_eq!(after(" 0 "), Some(0));
        assert_eq!(after("Sun, 06 Nov 1994 08:49:37 GMT"), Some(37));
        assert_eq!(after("Sun, 06 Nov 1994 08:48:00 GMT"), Some(0));
        for text in ["", "soon", "-1", "+1", "1.5"] {
            assert_eq!(after(text), None, "{text}");
        }
        let longest = Some(Duration::MAX.as_secs());
        assert_eq!(after("99999999999999999999"), longest);
        assert_eq!(wait(&[]), None);
        // The clock of the server is an hour ahead.
        let ahead = [
            (header::RETRY_AFTER, "Sun, 06 Nov 1994 09:49:10 GMT"),
            (header::DATE, "Sun, 06 Nov 1994 09:49:00 GMT"),
        ];
        assert_eq!(wait(&ahead), Some(10));
    }
}

//! Where a record comes from, for operators.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

use crate::request::trace_context::TraceId;

/// Longer endpoints and labels are cut, so that a store can keep a length in one byte.
const LONGEST: usize = 255;

/// The counters of an `Arc`.
const COUNTERS: usize = 16;

/// Where a record comes from: the facts about its first request that an operator sees.
///
/// A store keeps it with a claim and with the record that follows. When a claim is taken over, the
/// origin stays that of the first request.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Origin {
    endpoint: Cow<'static, str>,
    trace_id: Option<TraceId>,
    label: Option<Arc<str>>,
}

impl Origin {
    /// Returns the origin of a request to `endpoint`, which is the path of the handler, such as
    /// `desk::place_trade`. An endpoint of more than 255 bytes is cut.
    #[must_use]
    pub fn new(endpoint: impl Into<Cow<'static, str>>) -> Self {
        Self {
            endpoint: cut(endpoint.into()),
            trace_id: None,
            label: None,
        }
    }

    /// Sets the trace of the request.
    #[must_use]
    pub fn with_trace_id(mut self, trace_id: Option<TraceId>) -> Self {
        self.trace_id = trace_id;
        self
    }

    /// Sets the label that the service chose. A label of more than 255 bytes is cut, and an empty label counts as none.
    #[must_use]
    pub fn with_label(mut self, label: Option<Arc<str>>) -> Self {
        let label = label.filter(|label| !label.is_empty());
        self.label = label.map(|label| match cut(Cow::Borrowed(&*label)) {
            short if short.len() == label.len() => label.clone(),
            short => short.into(),
        });
        self
    }

    /// The path of the handler. Empty when the claim had no endpoint.
    #[must_use]
    pub fn endpoint(&self) -> &str {
        &self.endpoint
    }

    /// The trace of the first request, from its header `traceparent`.
    #[must_use]
    pub fn trace_id(&self) -> Option<TraceId> {
        self.trace_id
    }

    /// The label that [`label`](crate::IdempotencyBuilder::label) chose.
    #[must_use]
    pub fn label(&self) -> Option<&str> {
        self.label.as_deref()
    }

    /// The bytes of its texts that are not part of the program.
    pub(crate) fn heap_bytes(&self) -> usize {
        let endpoint = match &self.endpoint {
            Cow::Borrowed(_) => 0,
            Cow::Owned(endpoint) => endpoint.len(),
        };
        let label = self.label.as_ref().map(|label| label.len() + COUNTERS);
        endpoint + label.unwrap_or_default()
    }
}

/// An [`Origin`] without its trace, in 24 bytes, for a store that keeps many.
pub(super) struct CompactOrigin {
    /// Empty when `rest` has the endpoint.
    endpoint: &'static str,
    /// `None` for the endpoints of the attribute, whose names are part of the program, without a label.
    rest: Option<Box<Rest>>,
}

struct Rest {
    endpoint: Option<String>,
    label: Option<Arc<str>>,
}

impl CompactOrigin {
    /// The origin, without its trace.
    pub(super) fn origin(&self) -> Origin {
        let rest = self.rest.as_deref();
        let owned = rest.and_then(|rest| rest.endpoint.clone());
        Origin {
            endpoint: owned.map_or(Cow::Borrowed(self.endpoint), Cow::Owned),
            trace_id: None,
            label: rest.and_then(|rest| rest.label.clone()),
        }
    }

    /// As [`Origin::heap_bytes`].
    pub(super) fn heap_bytes(&self) -> usize {
        let Some(rest) = &self.rest else {
            return 0;
        };
        let endpoint = rest.endpoint.as_ref().map_or(0, String::len);
        let label = rest
            .label
            .as_ref()
            .map_or(0, |label| label.len() + COUNTERS);
        size_of::<Rest>() + endpoint + label
    }
}

impl From<Origin> for CompactOrigin {
    fn from(origin: Origin) -> Self {
        let (endpoint, owned) = match origin.endpoint {
            Cow::Borrowed(endpoint) => (endpoint, None),
            Cow::Owned(endpoint) => ("", Some(endpoint)),
        };
        let rest = (owned.is_some() || origin.label.is_some()).then(|| {
            Box::new(Rest {
                endpoint: owned,
                label: origin.label,
            })
        });
        Self { endpoint, rest }
    }
}

/// The label is left out, as in [`Origin`].
impl fmt::Debug for CompactOrigin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.origin().fmt(f)
    }
}

/// At most 255 bytes, without a part of a character.
fn cut(text: Cow<'_, str>) -> Cow<'_, str> {
    if text.len() <= LONGEST {
        return text;
    }
    let mut end = LONGEST;
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    match text {
        Cow::Borrowed(text) => Cow::Borrowed(&text[..end]),
        Cow::Owned(mut text) => {
            text.truncate(end);
            Cow::Owned(text)
        }
    }
}

/// The label is left out: the service may put personal data into it.
impl fmt::Debug for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Origin")
            .field("endpoint", &self.endpoint)
            .field("trace_id", &self.trace_id)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_texts_are_cut_between_characters() {
        let long = format!("{}ß", "x".repeat(254));
        for endpoint in [
            Origin::new(long.clone()),
            Origin::new(&*Box::leak(long.clone().into_boxed_str())),
        ] {
            assert_eq!(endpoint.endpoint(), "x".repeat(254));
        }
        let labelled = Origin::default().with_label(Some(long.into()));
        assert_eq!(labelled.label(), Some(&*"x".repeat(254)));
        let short = Origin::default().with_label(Some("inv-2291".into()));
        assert_eq!(short.label(), Some("inv-2291"));
    }

    #[test]
    fn an_empty_label_is_no_label() {
        let labelled = Origin::default().with_label(Some("".into()));
        assert_eq!(labelled.label(), None);
    }

    #[test]
    fn debug_hides_the_label() {
        let origin = Origin::new("desk::place_trade").with_label(Some("SECRET".into()));
        let shown = format!("{origin:?}");
        assert!(shown.contains("desk::place_trade") && !shown.contains("SECRET"));
    }
}

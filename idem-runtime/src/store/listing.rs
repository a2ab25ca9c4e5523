//! Queries of an operator about many records at once, and the replies of a store.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;
use std::time::{Duration, SystemTime};

use http::StatusCode;

use super::StoreError;
use super::origin::Origin;
use super::record::{DecodeError, Record};
use crate::request::record_id::{RecordId, ShortId};
use crate::request::scope_id::ScopeId;

/// How many records a page has at most, unless the query says otherwise.
const LIMIT: usize = 100;

/// Which records an operator wants to see, and where the page begins.
///
/// Every filter narrows the listing. Without a filter, all records of the store are listed, including those of other
/// namespaces.
///
/// ```
/// use std::time::Duration;
/// use idem_runtime::store::{Query, StateKind};
///
/// let stuck = Query::all()
///     .state(StateKind::Unknown)
///     .older_than(Duration::from_secs(600));
/// # let _ = stuck;
/// ```
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Query {
    /// Only records in this state.
    pub state: Option<StateKind>,
    /// Only records of this endpoint, which is the path of the handler.
    pub endpoint: Option<Cow<'static, str>>,
    /// Only records of this scope.
    pub scope: Option<ScopeId>,
    /// Only records that were created at least this long ago.
    pub older_than: Option<Duration>,
    /// Only records with this short id, as logs show it.
    pub short: Option<ShortId>,
    /// Only records behind this place: the [`next`](Page::next) of the page before.
    pub after: Option<Cursor>,
    /// How many records the page has at most. At least 1 and at most 1,000.
    pub limit: usize,
}

impl Query {
    /// The largest page.
    pub const MAX_LIMIT: usize = 1_000;

    /// All records, 100 to a page.
    #[must_use]
    pub fn all() -> Self {
        Self {
            state: None,
            endpoint: None,
            scope: None,
            older_than: None,
            short: None,
            after: None,
            limit: LIMIT,
        }
    }

    /// Only records in this state.
    #[must_use]
    pub fn state(mut self, state: StateKind) -> Self {
        self.state = Some(state);
        self
    }

    /// Only records of this endpoint, which is the path of the handler, such as `desk::place_trade`.
    #[must_use]
    pub fn endpoint(mut self, endpoint: impl Into<Cow<'static, str>>) -> Self {
        self.endpoint = Some(endpoint.into());
        self
    }

    /// Only records of this scope.
    #[must_use]
    pub fn scope(mut self, scope: ScopeId) -> Self {
        self.scope = Some(scope);
        self
    }

    /// Only records that were created at least this long ago, by the clock of the store.
    #[must_use]
    pub fn older_than(mut self, age: Duration) -> Self {
        self.older_than = Some(age);
        self
    }

    /// Only records with this short id, as logs show it.
    #[must_use]
    pub fn short(mut self, short: ShortId) -> Self {
        self.short = Some(short);
        self
    }

    /// Only records behind this place: the [`next`](Page::next) of the page before.
    #[must_use]
    pub fn after(mut self, cursor: Cursor) -> Self {
        self.after = Some(cursor);
        self
    }

    /// How many records the page has at most. At least 1 and at most 1,000.
    #[must_use]
    pub fn limit(mut self, limit: usize) -> Self {
        self.limit = limit.clamp(1, Self::MAX_LIMIT);
        self
    }

    /// Returns whether a record passes the filters, for stores without an index for them. `now` comes from the same clock
    /// as `created_at`. The place of the cursor is not compared.
    #[must_use]
    pub fn matches(&self, entry: &Summary, now: SystemTime) -> bool {
        let is_old_enough = |age| {
            now.duration_since(entry.created_at)
                .is_ok_and(|is| is >= age)
        };
        self.matches_id(&entry.id)
            && self.state.is_none_or(|state| state == entry.state.kind())
            && self
                .endpoint
                .as_ref()
                .is_none_or(|endpoint| endpoint == entry.origin.endpoint())
            && self.older_than.is_none_or(is_old_enough)
    }

    /// Returns whether a record passes the filters on the record id.
    #[must_use]
    pub fn matches_id(&self, id: &RecordId) -> bool {
        self.scope.is_none_or(|scope| scope == id.scope_id())
            && self.short.is_none_or(|short| short == id.short())
    }

    /// The limit, also when the field was set to a number out of range.
    pub(crate) fn page_len(&self) -> usize {
        self.limit.clamp(1, Self::MAX_LIMIT)
    }
}

impl Default for Query {
    fn default() -> Self {
        Self::all()
    }
}

/// A page of a listing.
///
/// A record that exists from the first page to the last page is listed exactly once, even while other
/// records change. A record that is added or removed during the listing may be listed or not.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Page {
    /// The records. The order is up to the store.
    pub entries: Vec<Summary>,
    /// Where the next page begins. `None` after the last page. A page may be short or empty although more
    /// pages follow, because a store examines a limited number of records for each page.
    pub next: Option<Cursor>,
}

impl Page {
    /// Returns a page, and the place where the next page begins.
    #[must_use]
    pub fn new(entries: Vec<Summary>, next: Option<Cursor>) -> Self {
        Self { entries, next }
    }
}

/// A place in a listing. Only the store that returned it knows its meaning.
///
/// `Display` writes it as text for a URL or a command line, and `FromStr` reads the text.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Cursor(Box<[u8]>);

impl Cursor {
    /// Creates a cursor from bytes that only the store interprets.
    #[must_use]
    pub fn from_bytes(bytes: impl Into<Box<[u8]>>) -> Self {
        Self(bytes.into())
    }

    /// Returns the bytes that the store passed to [`from_bytes`](Self::from_bytes).
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// The place behind a record, in the order of the record ids.
    pub(crate) fn of_record(id: RecordId) -> Self {
        Self::from_bytes(*id.as_bytes())
    }

    /// The record that [`of_record`](Self::of_record) took.
    pub(crate) fn record_id(&self) -> Result<RecordId, StoreError> {
        let bytes = <[u8; 32]>::try_from(self.as_bytes());
        let bytes = bytes.map_err(|_| StoreError::InvalidCursor)?;
        Ok(RecordId::from_bytes(bytes))
    }
}

impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        crate::request::hex::write(f, &self.0)
    }
}

impl fmt::Debug for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Cursor({self})")
    }
}

/// The text is not that of a cursor.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a cursor is an even number of hexadecimal digits")]
pub struct ParseCursorError;

impl FromStr for Cursor {
    type Err = ParseCursorError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let pairs = text.as_bytes().chunks(2);
        let bytes: Option<Vec<u8>> = pairs
            .map(|pair| crate::request::hex::read::<1>(pair).map(|[byte]| byte))
            .collect();
        bytes.map(Self::from_bytes).ok_or(ParseCursorError)
    }
}

/// One record in a listing, without its headers and its body.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Summary {
    /// The id of the record.
    pub id: RecordId,
    /// Where the record comes from.
    pub origin: Origin,
    /// When the first attempt claimed the record, by the clock of the store.
    pub created_at: SystemTime,
    /// The state of the record.
    pub state: State,
}

impl Summary {
    /// Returns a summary of a record.
    #[must_use]
    pub fn new(id: RecordId, origin: Origin, created_at: SystemTime, state: State) -> Self {
        Self {
            id,
            origin,
            created_at,
            state,
        }
    }
}

/// The state of a record in a listing.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum State {
    /// A claim whose lease holds.
    InFlight {
        /// The fence of the attempt.
        fence: u64,
        /// The number of the attempt, from 1.
        attempt: u32,
        /// How long the claim holds if it is not renewed.
        lease_left: Duration,
    },
    /// A claim that lapsed without a response.
    Unknown {
        /// The fence of the attempt, which [`resolve`](super::Store::resolve) needs.
        fence: u64,
        /// The number of the attempt, from 1.
        attempt: u32,
        /// How long the unknown outcome is remembered.
        retained_for: Duration,
    },
    /// A finished record.
    Recorded {
        /// The status of the response.
        status: StatusCode,
        /// Whether the response is there to be replayed.
        is_kept: bool,
        /// The length of the record in bytes.
        bytes: u64,
        /// When the record was stored, by the clock of the store.
        settled_at: SystemTime,
        /// How long the record is replayed.
        expires_in: Duration,
    },
    /// An entry that this version of the library cannot read. The store leaves it in place.
    Unreadable(DecodeError),
}

impl State {
    /// The state of a record that the store has read.
    #[must_use]
    pub fn recorded(record: &Record, settled_at: SystemTime, expires_in: Duration) -> Self {
        if record.is_sealed() {
            return Self::Unreadable(DecodeError::Sealed);
        }
        Self::Recorded {
            status: record.status(),
            is_kept: record.is_kept(),
            bytes: record.as_bytes().len() as u64,
            settled_at,
            expires_in,
        }
    }

    /// Returns the kind of the state. A record counts as recorded even if only its seal is wrong: a sealed record in a
    /// service without `Sealed`, an unsealed record in a service with `Sealed`, or a record that does not open.
    #[must_use]
    pub fn kind(&self) -> StateKind {
        match self {
            Self::InFlight { .. } => StateKind::InFlight,
            Self::Unknown { .. } => StateKind::Unknown,
            Self::Recorded { .. }
            | Self::Unreadable(
                DecodeError::Sealed
                | DecodeError::NotSealed
                | DecodeError::MissingKey(_)
                | DecodeError::NotAuthentic,
            ) => StateKind::Recorded,
            Self::Unreadable(_) => StateKind::Unreadable,
        }
    }
}

/// Which state a record is in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum StateKind {
    /// A claim whose lease holds.
    InFlight,
    /// A claim that lapsed without a response.
    Unknown,
    /// A finished record.
    Recorded,
    /// An entry that this version of the library cannot read.
    Unreadable,
}

/// The number of records in a store, and how full the store is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Stats {
    /// How many claims are in flight.
    pub in_flight: Count,
    /// How many outcomes are unknown.
    pub unknown: Count,
    /// How many records are finished.
    pub recorded: Count,
    /// How many bytes the store uses, if the store knows.
    pub bytes: Option<u64>,
    /// How many bytes the store may use, if there is a limit and the store knows it.
    pub max_bytes: Option<u64>,
}

/// A number of records, and how far it can be trusted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Count {
    /// The number.
    pub value: u64,
    /// How far it can be trusted.
    pub precision: Precision,
}

impl Count {
    /// A number that was counted.
    #[must_use]
    pub const fn exact(value: u64) -> Self {
        Self {
            value,
            precision: Precision::Exact,
        }
    }

    /// A lower bound: the store stopped counting at this number.
    #[must_use]
    pub const fn at_least(value: u64) -> Self {
        Self {
            value,
            precision: Precision::AtLeast,
        }
    }

    /// A number from statistics.
    #[must_use]
    pub const fn estimate(value: u64) -> Self {
        Self {
            value,
            precision: Precision::Estimate,
        }
    }
}

/// How far a [`Count`] can be trusted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Precision {
    /// The records were counted.
    #[default]
    Exact,
    /// There are at least this many records: the store stopped counting here.
    AtLeast,
    /// The number comes from statistics.
    Estimate,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_is_read_from_its_text() {
        let cursor = Cursor::from_bytes([0, 7, 255]);
        assert_eq!(cursor.to_string(), "0007ff");
        assert_eq!(cursor.to_string().parse(), Ok(cursor));
        assert_eq!("".parse(), Ok(Cursor::from_bytes([])));
        for text in ["0", "0g", "000"] {
            assert_eq!(text.parse::<Cursor>(), Err(ParseCursorError), "{text}");
        }
    }

    #[test]
    fn every_filter_narrows_a_query() {
        let now = SystemTime::now();
        let age = Duration::from_secs(60);
        let id = RecordId::from_bytes(std::array::from_fn(|n| n.to_le_bytes()[0]));
        let state = State::Unknown {
            fence: 1,
            attempt: 1,
            retained_for: age,
        };
        let entry = Summary::new(id, Origin::new("pay"), now - age, state);
        let short = ShortId::from_bytes([16, 17, 18, 19, 20, 21]);
        let matching = Query::all()
            .state(StateKind::Unknown)
            .endpoint("pay")
            .scope(id.scope_id())
            .short(short)
            .older_than(age);
        assert!(matching.matches(&entry, now));
        for other in [
            matching.clone().state(StateKind::InFlight),
            matching.clone().endpoint("refund"),
            matching.clone().scope(ScopeId::from_bytes([0; 16])),
            matching.clone().short(ShortId::from_bytes([0; 6])),
            matching.clone().older_than(age + Duration::from_secs(1)),
        ] {
            assert!(!other.matches(&entry, now), "{other:?}");
        }
    }

    #[test]
    fn a_limit_out_of_range_is_corrected() {
        assert_eq!(Query::all().limit(0).limit, 1);
        assert_eq!(Query::all().limit(usize::MAX).limit, Query::MAX_LIMIT);
        let mut query = Query::all();
        query.limit = 0;
        assert_eq!(query.page_len(), 1);
    }
}

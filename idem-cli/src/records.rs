//! Finds a record by its id, its URN, or the digits of the log.

use std::str::FromStr;

use axum_idem::store::{Query, StateKind, StoreError, Summary};
use axum_idem::{Idempotency, RecordId, ShortId};

use crate::failure::Failure;

/// How an operator names a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reference {
    Id(RecordId),
    Short(ShortId),
}

impl FromStr for Reference {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let digits = text.rsplit(':').next().unwrap_or(text);
        let id = digits.parse().map(Self::Id).ok();
        id.or_else(|| digits.parse().map(Self::Short).ok())
            .ok_or("a record is its 64 hexadecimal digits, its URN, or the 12 digits of the log")
    }
}

impl Reference {
    /// The id of the record. The digits of the log must belong to one record.
    pub(crate) async fn find(self, idem: &Idempotency) -> Result<RecordId, Failure> {
        let short = match self {
            Self::Id(id) => return Ok(id),
            Self::Short(short) => short,
        };
        let mut query = Query::all().short(short);
        let mut found: Vec<RecordId> = Vec::new();
        loop {
            let page = idem.list(query.clone()).await?;
            found.extend(page.entries.iter().map(|entry| entry.id));
            match page.next {
                Some(next) => query = query.after(next),
                None => break,
            }
        }
        found.sort();
        found.dedup();
        match found[..] {
            [] => Err(nothing(&format!("whose digits are {short}"))),
            [id] => Ok(id),
            _ => {
                let ids: Vec<String> = found.iter().map(ToString::to_string).collect();
                Err(Failure::Usage(format!(
                    "{} records have the digits {short}; choose one of them: {}",
                    found.len(),
                    ids.join(" ")
                )))
            }
        }
    }
}

/// The recorded entries of the first page that has some. A page of Redis may be empty although more follow.
pub(crate) async fn recorded_sample(idem: &Idempotency) -> Result<Vec<Summary>, StoreError> {
    let mut query = Query::all().state(StateKind::Recorded);
    loop {
        let page = idem.list(query.clone()).await?;
        match page.next {
            Some(next) if page.entries.is_empty() => query = query.after(next),
            _ => return Ok(page.entries),
        }
    }
}

/// There is no such record.
pub(crate) fn nothing(which: &str) -> Failure {
    Failure::Nothing(format!(
        "there is no record {which}; it may have expired, or belong to another store, table or prefix"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_is_named_by_its_id_its_urn_or_its_short_id() {
        let id = RecordId::from_bytes([0xab; 32]);
        for text in [id.to_string(), id.urn()] {
            assert_eq!(text.parse(), Ok(Reference::Id(id)), "{text}");
        }
        let short = id.short();
        assert_eq!(short.to_string().parse(), Ok(Reference::Short(short)));
        for text in ["", "ab", "xyz", "a-key-of-a-customer"] {
            assert!(text.parse::<Reference>().is_err(), "{text}");
        }
    }
}

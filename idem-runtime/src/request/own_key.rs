//! Reads the key of an endpoint with `key = …`.

use std::borrow::Cow;

use axum::extract::Request;

use crate::request::chosen_key::ChosenKey;
use crate::request::key;
use crate::settings::dialect::Dialect;
use crate::settings::policy::KeySource;

/// The key that an endpoint chooses.
pub(crate) struct OwnKey {
    place: Place,
    /// Only [`OwnKey::new`] names the function, so that a program without such an endpoint does not contain it.
    read: Read,
}

/// Where an endpoint has its key.
enum Place {
    /// In this header.
    Header(&'static str),
    /// Here, unless the request has none.
    Value(Option<Box<str>>),
}

/// `Ok(None)` means that the request has no key.
type Key<'a> = Result<Option<Cow<'a, str>>, &'static str>;

type Read = for<'a> fn(&'a Place, &'a Request, KeySource, &Dialect) -> Key<'a>;

impl OwnKey {
    pub(crate) fn in_header(name: &'static str) -> Self {
        Self::new(Place::Header(name))
    }

    pub(crate) fn of_value(key: Option<Box<str>>) -> Self {
        Self::new(Place::Value(key))
    }

    fn new(place: Place) -> Self {
        Self { place, read }
    }

    /// Returns the key that the endpoint chooses. Passes the key to the arguments of the handler.
    pub(crate) fn read<'a>(
        &'a self,
        request: &'a Request,
        source: KeySource,
        dialect: &Dialect,
    ) -> Key<'a> {
        (self.read)(&self.place, request, source, dialect)
    }
}

fn read<'a>(
    place: &'a Place,
    request: &'a Request,
    source: KeySource,
    dialect: &Dialect,
) -> Key<'a> {
    let is_safe = request.method().is_safe();
    if is_safe && source == KeySource::Endpoint {
        return Ok(None);
    }
    let key = match place {
        Place::Header(name) => key::parse_own(request.headers(), name, dialect)?,
        Place::Value(None) => None,
        Place::Value(Some(key)) => {
            key::check_chosen(key, dialect)?;
            Some(Cow::Borrowed(&**key))
        }
    };
    if let (Some(key), Some(chosen)) = (&key, request.extensions().get::<ChosenKey>()) {
        chosen.set(key);
    }
    Ok(key.filter(|_| !is_safe))
}

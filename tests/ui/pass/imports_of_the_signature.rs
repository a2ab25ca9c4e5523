//! An import that only the signature uses is not reported as unused.
#![deny(warnings)]
#![forbid(unused_imports)]

use std::convert::Infallible;

use axum::extract::State;
use axum::response::IntoResponse;
use axum::response::sse::{Event, Sse};
use axum_idem::idempotent;
use futures_util::Stream;

#[idempotent(scope = token)]
pub async fn opaque(State(_): State<u8>) -> impl IntoResponse {
    "booked"
}

#[idempotent(scope = token)]
pub async fn events() -> Sse<impl Stream<Item = Result<Event, Infallible>>> {
    Sse::new(futures_util::stream::iter([Ok(Event::default())]))
}

/// Only the return type uses this trait.
trait Answered: IntoResponse {}
impl Answered for &'static str {}

#[idempotent(scope = token)]
async fn own_trait() -> impl Answered + Send {
    "booked"
}

/// A path of an import would be ambiguous, because there is also a crate of this name.
mod ambiguous {
    use axum_idem::idempotent;

    mod futures_util {
        pub trait Answered: axum::response::IntoResponse {}
        impl Answered for String {}
    }

    #[idempotent(scope = token)]
    pub async fn order(body: String) -> impl futures_util::Answered {
        body
    }
}

mod methods {
    use axum::response::IntoResponse;
    use axum_idem::idempotent;

    pub struct Refused;

    impl From<Refused> for axum::http::StatusCode {
        fn from(_: Refused) -> Self {
            Self::CONFLICT
        }
    }

    impl Refused {
        pub const STATUS: u16 = 409;

        #[idempotent(scope = token)]
        pub async fn opaque()
        -> Result<impl IntoResponse, [(&'static str, &'static str); Self::STATUS as usize]>
        {
            Ok("booked")
        }
    }
}

pub fn main() {
    drop(methods::Refused::opaque(().into()));
    drop(own_trait(().into()));
    drop(ambiguous::order(String::new().into()));
}

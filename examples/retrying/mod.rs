//! A client that may retry: one key for each operation, and patience.
//!
//! Three layers around `reqwest`, from the outside in:
//!
//! 1. [`OneKey`] gives every write its key, once, before the first try.
//! 2. [`RetryTransientMiddleware`] tries again, waiting longer each time.
//! 3. [`WholeAnswers`] is there for each try: it waits as long as the server asked for, and reads the
//!    answer to its end, so that one which breaks off half way counts as lost.

use std::time::Duration;

use async_trait::async_trait;
use axum::http::header::{HeaderName, HeaderValue, RETRY_AFTER};
use axum::http::{self, Extensions, StatusCode};
use reqwest::{Request, Response};
use reqwest_middleware::{ClientBuilder, ClientWithMiddleware, Error, Middleware, Next, Result};
use reqwest_retry::policies::ExponentialBackoff;
use reqwest_retry::{Jitter, RetryTransientMiddleware, Retryable, RetryableStrategy};
use tokio::time::Instant;
use uuid::Uuid;

pub(crate) const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");

/// How often an operation is tried, and how long the client waits in between.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Patience {
    pub(crate) tries: u32,
    /// Before the second try, at most. It doubles from try to try.
    pub(crate) first_wait: Duration,
    pub(crate) longest_wait: Duration,
    /// When a try counts as lost.
    pub(crate) timeout: Option<Duration>,
}

impl Default for Patience {
    fn default() -> Self {
        Self {
            tries: 5,
            first_wait: Duration::from_millis(500),
            longest_wait: Duration::from_secs(30),
            timeout: Some(Duration::from_secs(30)),
        }
    }
}

impl Patience {
    /// Any share of the whole wait, so that clients which failed together do not come back together.
    pub(crate) fn backoff(self) -> ExponentialBackoff {
        ExponentialBackoff::builder()
            .retry_bounds(self.first_wait, self.longest_wait)
            .base(2)
            .jitter(Jitter::Full)
            .build_with_max_retries(self.tries.saturating_sub(1))
    }
}

/// A client whose writes are safe to retry, where the server keeps keys.
pub(crate) fn client(patience: Patience) -> reqwest::Result<ClientWithMiddleware> {
    let mut client = reqwest::Client::builder();
    if let Some(timeout) = patience.timeout {
        client = client.timeout(timeout);
    }
    let retries =
        RetryTransientMiddleware::new_with_policy_and_strategy(patience.backoff(), WorthATry);
    Ok(ClientBuilder::new(client.build()?)
        .with(OneKey)
        .with(retries)
        .with(WholeAnswers)
        .build())
}

/// Gives every write a key, unless its caller made one from an id of its own.
struct OneKey;

#[async_trait]
impl Middleware for OneKey {
    async fn handle(
        &self,
        mut request: Request,
        extensions: &mut Extensions,
        next: Next<'_>,
    ) -> Result<Response> {
        if !request.method().is_safe() {
            let key = request.headers_mut().entry(IDEMPOTENCY_KEY);
            key.or_insert_with(|| {
                // Hexadecimal digits and hyphens stand in any header.
                HeaderValue::try_from(Uuid::new_v4().to_string()).expect("a header value")
            });
        }
        next.run(request, extensions).await
    }
}

/// Retries a request that was lost on the way, one that the server could not serve just now, and one
/// that it may still be working on: behind a 408 of a timeout layer, the handler runs on.
struct WorthATry;

impl RetryableStrategy for WorthATry {
    fn handle(&self, answer: &Result<Response>) -> Option<Retryable> {
        match answer {
            Ok(answer) => {
                let status = answer.status();
                let asks_for_a_retry = matches!(
                    status,
                    StatusCode::REQUEST_TIMEOUT
                        | StatusCode::TOO_EARLY
                        | StatusCode::TOO_MANY_REQUESTS
                );
                let is_worth_it = status.is_server_error()
                    || asks_for_a_retry
                    || answer.extensions().get::<TryAgain>().is_some();
                is_worth_it.then_some(Retryable::Transient)
            }
            // These would fail every time. All else happened on the way.
            Err(Error::Reqwest(error)) if error.is_builder() || error.is_redirect() => None,
            Err(Error::Reqwest(_)) => Some(Retryable::Transient),
            Err(Error::Middleware(_)) => None,
        }
    }
}

/// The `code` of the response asks for the same request again. Other responses with the same status,
/// such as the 409 of a key that was used for something else, are the caller's own mistake.
#[derive(Clone, Copy)]
struct TryAgain;

/// The first request with this key still runs; the body of this one did not arrive whole.
const CODES_WORTH_A_TRY: [&str; 2] = ["idempotency_key_in_flight", "idempotency_body_incomplete"];

/// When the server is to be asked again. Stands in the extensions that all tries share.
#[derive(Clone, Copy)]
struct NotBefore(Instant);

struct WholeAnswers;

#[async_trait]
impl Middleware for WholeAnswers {
    async fn handle(
        &self,
        request: Request,
        extensions: &mut Extensions,
        next: Next<'_>,
    ) -> Result<Response> {
        if let Some(NotBefore(instant)) = extensions.remove() {
            tokio::time::sleep_until(instant).await;
        }
        let answer = next.run(request, extensions).await?;
        if let Some(wait) = retry_after(&answer) {
            extensions.insert(NotBefore(Instant::now() + wait));
        }

        let mut whole = http::Response::builder()
            .status(answer.status())
            .version(answer.version());
        if let Some(headers) = whole.headers_mut() {
            headers.clone_from(answer.headers());
        }
        let is_refused = answer.status().is_client_error();
        let body = answer.bytes().await?;
        if is_refused && code_of(&body).is_some_and(|code| CODES_WORTH_A_TRY.contains(&&*code)) {
            whole = whole.extension(TryAgain);
        }
        let whole = whole.body(body).map_err(Error::middleware)?;
        Ok(whole.into())
    }
}

/// The seconds of `Retry-After`. Its other form, a date, is left to the backoff.
fn retry_after(answer: &Response) -> Option<Duration> {
    let seconds = answer.headers().get(RETRY_AFTER)?.to_str().ok()?;
    seconds.parse().ok().map(Duration::from_secs)
}

/// The `code` of an `application/problem+json`.
fn code_of(body: &[u8]) -> Option<String> {
    let problem: serde_json::Value = serde_json::from_slice(body).ok()?;
    problem["code"].as_str().map(str::to_owned)
}

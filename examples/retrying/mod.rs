//! A client that retries, with one key per operation.
//!
//! Three middlewares around `reqwest`, from the outside to the inside:
//!
//! 1. [`OneKey`] gives every write one key before the first try.
//! 2. [`RetryTransientMiddleware`] retries, and waits longer each time.
//! 3. [`WholeResponses`] handles each try. It waits as long as the server asked for, and reads the
//!    whole response, so that a response that breaks off counts as lost.

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

/// How often an operation is tried, and how long the client waits between tries.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Patience {
    pub(crate) tries: u32,
    /// The longest wait before the second try. It doubles with each try.
    pub(crate) first_wait: Duration,
    pub(crate) longest_wait: Duration,
    /// The time after which a try counts as lost.
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
    /// Draws each wait at random up to its limit, so that clients that failed together do not retry
    /// together.
    pub(crate) fn backoff(self) -> ExponentialBackoff {
        ExponentialBackoff::builder()
            .retry_bounds(self.first_wait, self.longest_wait)
            .base(2)
            .jitter(Jitter::Full)
            .build_with_max_retries(self.tries.saturating_sub(1))
    }
}

/// Returns a client whose writes are safe to retry, when the server supports keys.
pub(crate) fn client(patience: Patience) -> reqwest::Result<ClientWithMiddleware> {
    let mut client = reqwest::Client::builder();
    if let Some(timeout) = patience.timeout {
        client = client.timeout(timeout);
    }
    let retries =
        RetryTransientMiddleware::new_with_policy_and_strategy(patience.backoff(), RetryStrategy);
    Ok(ClientBuilder::new(client.build()?)
        .with(OneKey)
        .with(retries)
        .with(WholeResponses)
        .build())
}

/// Gives every write a key, unless the caller has set its own key.
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
                // A UUID contains only characters that are allowed in a header.
                HeaderValue::try_from(Uuid::new_v4().to_string()).expect("a header value")
            });
        }
        next.run(request, extensions).await
    }
}

/// Retries requests that were lost, responses that report a temporary failure, and a 408. After a 408
/// of a timeout layer, the handler continues, and a retry gets its response.
struct RetryStrategy;

impl RetryableStrategy for RetryStrategy {
    fn handle(&self, response: &Result<Response>) -> Option<Retryable> {
        match response {
            Ok(response) => {
                let status = response.status();
                let asks_for_a_retry = matches!(
                    status,
                    StatusCode::REQUEST_TIMEOUT
                        | StatusCode::TOO_EARLY
                        | StatusCode::TOO_MANY_REQUESTS
                );
                let is_worth_it = status.is_server_error()
                    || asks_for_a_retry
                    || response.extensions().get::<TryAgain>().is_some();
                is_worth_it.then_some(Retryable::Transient)
            }
            // These errors would occur again. All other errors happened on the network.
            Err(Error::Reqwest(error)) if error.is_builder() || error.is_redirect() => None,
            Err(Error::Reqwest(_)) => Some(Retryable::Transient),
            Err(Error::Middleware(_)) => None,
        }
    }
}

/// Marks a response whose `code` asks for a retry. Other responses with the same status, such as the
/// 409 of a reused key, are mistakes of the caller.
#[derive(Clone, Copy)]
struct TryAgain;

/// The first request with this key still runs, or the body of this request arrived incomplete.
const CODES_WORTH_A_TRY: [&str; 2] = ["idempotency_key_in_flight", "idempotency_body_incomplete"];

/// The earliest time of the next try. All tries of an operation share these extensions.
#[derive(Clone, Copy)]
struct NotBefore(Instant);

struct WholeResponses;

#[async_trait]
impl Middleware for WholeResponses {
    async fn handle(
        &self,
        request: Request,
        extensions: &mut Extensions,
        next: Next<'_>,
    ) -> Result<Response> {
        if let Some(NotBefore(instant)) = extensions.remove() {
            tokio::time::sleep_until(instant).await;
        }
        let response = next.run(request, extensions).await?;
        if let Some(wait) = retry_after(&response) {
            extensions.insert(NotBefore(Instant::now() + wait));
        }

        let mut whole = http::Response::builder()
            .status(response.status())
            .version(response.version());
        if let Some(headers) = whole.headers_mut() {
            headers.clone_from(response.headers());
        }
        let is_refused = response.status().is_client_error();
        let body = response.bytes().await?;
        if is_refused && code_of(&body).is_some_and(|code| CODES_WORTH_A_TRY.contains(&&*code)) {
            whole = whole.extension(TryAgain);
        }
        let whole = whole.body(body).map_err(Error::middleware)?;
        Ok(whole.into())
    }
}

/// Returns the seconds of `Retry-After`. A date in this header is ignored, and the backoff applies.
fn retry_after(response: &Response) -> Option<Duration> {
    let seconds = response.headers().get(RETRY_AFTER)?.to_str().ok()?;
    seconds.parse().ok().map(Duration::from_secs)
}

/// Returns the `code` of an `application/problem+json` body.
fn code_of(body: &[u8]) -> Option<String> {
    let problem: serde_json::Value = serde_json::from_slice(body).ok()?;
    problem["code"].as_str().map(str::to_owned)
}

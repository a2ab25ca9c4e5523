//! Sends one operation: with one key, until it has a final response or its deadline has passed.

use std::mem;
use std::time::SystemTime;

use async_trait::async_trait;
use http::Extensions;
use reqwest::{Request, Response, ResponseBuilderExt as _};
use reqwest_middleware::{Error, Middleware, Next, Result};

use crate::client::redirect::{self, MAX_REDIRECTS};
use crate::exchange::{Exchange, Outcome};
use crate::failure::{Failure, Reason};
use crate::key::{Keys, Operation};
use crate::policy::Policy;
use crate::retry_after::retry_after;
use crate::schedule::Schedule;
use crate::verdict::{Verdict, depends_on_code};

/// The middleware that gives each write a key, and retries.
#[derive(Debug)]
pub(crate) struct Retries {
    policy: Policy,
    keys: Keys,
}

/// The response to one try.
struct Reply {
    response: Response,
    verdict: Verdict,
}

/// Why one try has no response.
struct Lost {
    failure: Failure,
    verdict: Verdict,
}

impl Retries {
    pub(crate) fn new(policy: Policy, keys: Keys) -> Self {
        Self { policy, keys }
    }

    /// Sends the request once, and follows its redirects at the same origin.
    async fn try_once(
        &self,
        mut request: Request,
        extensions: &mut Extensions,
        next: &Next<'_>,
        has_key: bool,
    ) -> Result<Reply> {
        let is_write = !request.method().is_safe();
        for _ in 0..=MAX_REDIRECTS {
            let copy = request.try_clone();
            let response = next.clone().run(request, extensions).await?;
            let redirected = match copy {
                Some(copy) => redirect::next(&response, copy, &self.policy, has_key)
                    .map_err(Error::middleware)?,
                None => None,
            };
            let Some(redirected) = redirected else {
                return read_response(&self.policy, response, is_write).await;
            };
            request = redirected;
        }
        Err(Error::middleware(Failure::new(Reason::Redirect)))
    }
}

#[async_trait]
impl Middleware for Retries {
    async fn handle(
        &self,
        mut request: Request,
        extensions: &mut Extensions,
        next: Next<'_>,
    ) -> Result<Response> {
        let operation = extensions.get::<Operation>().cloned();
        let method = request.method().clone();
        let assigned = self
            .keys
            .assign(
                &self.policy,
                &method,
                request.headers_mut(),
                operation.as_ref(),
            )
            .await
            .map_err(Error::middleware)?;
        let mut outcome = Outcome::before(&method, &assigned);
        let key = assigned.key.as_deref();
        if key.is_some() && request.try_clone().is_none() {
            return Err(Error::middleware(Failure::new(Reason::BodyNotRepeatable)));
        }
        // Without a key, only a read can be repeated.
        let mut is_repeatable = key.is_some() || method.is_safe();
        let mut request = Some(request);
        let mut schedule = Schedule::start(&self.policy);
        loop {
            let copy = request.as_ref().and_then(Request::try_clone);
            is_repeatable &= copy.is_some();
            let Some(this) = copy.or_else(|| request.take()) else {
                unreachable!("a request without a copy is sent once");
            };
            let limit = schedule.next_try();
            let sending = self.try_once(this, extensions, &next, key.is_some());
            let (result, asked_for) = match tokio::time::timeout(limit, sending).await {
                Ok(Ok(reply)) => {
                    let asked_for = retry_after(reply.response.headers(), SystemTime::now());
                    (Ok(reply), asked_for)
                }
                Ok(Err(error)) => (Err(Lost::by(error)), None),
                Err(_) => (Err(Lost::timed_out()), None),
            };
            let verdict = match &result {
                Ok(reply) => reply.verdict,
                Err(lost) => lost.verdict,
            };
            outcome.note(verdict.leaves_open);
            if verdict.is_temporary && is_repeatable && schedule.wait(asked_for).await {
                continue;
            }
            return match result {
                Ok(Reply { mut response, .. }) => {
                    let key = key.map(str::to_owned);
                    let exchange = Exchange::new(
                        &self.policy,
                        key,
                        schedule.tries,
                        &outcome,
                        response.status(),
                        response.headers(),
                    );
                    response.extensions_mut().insert(exchange);
                    Ok(response)
                }
                Err(lost) => {
                    let failure = lost.failure.of_operation(key, schedule.tries);
                    Err(Error::middleware(failure))
                }
            };
        }
    }
}

impl Lost {
    fn by(error: Error) -> Self {
        match error {
            Error::Reqwest(error) => Self {
                verdict: Verdict {
                    // A request that cannot be built would fail again. All other errors happened on the network.
                    is_temporary: !error.is_builder(),
                    // Without a connection, the server did not receive the request.
                    leaves_open: !error.is_connect(),
                },
                failure: Failure::new(Reason::Transport).caused_by(error),
            },
            Error::Middleware(error) => Self {
                verdict: Verdict {
                    is_temporary: false,
                    leaves_open: true,
                },
                failure: error
                    .downcast()
                    .unwrap_or_else(|error| Failure::new(Reason::Middleware).caused_by(error)),
            },
        }
    }

    fn timed_out() -> Self {
        Self {
            failure: Failure::new(Reason::TimedOut),
            verdict: Verdict::LOST,
        }
    }
}

/// Reads the whole response to a write, so that a response that breaks off counts as lost. The code in the body may decide
/// whether an error is temporary.
async fn read_response(policy: &Policy, mut response: Response, is_write: bool) -> Result<Reply> {
    let status = response.status();
    if !is_write && !depends_on_code(status) {
        return Ok(Reply {
            verdict: Verdict::on(policy, status, response.headers(), &[]),
            response,
        });
    }
    let mut whole = http::Response::builder()
        .status(status)
        .version(response.version());
    if let Some(headers) = whole.headers_mut() {
        *headers = mem::take(response.headers_mut());
    }
    if let Some(extensions) = whole.extensions_mut() {
        *extensions = mem::take(response.extensions_mut());
    }
    let whole = whole.url(response.url().clone());
    let body = response.bytes().await?;
    let whole = whole.body(body.clone()).map_err(Error::middleware)?;
    Ok(Reply {
        verdict: Verdict::on(policy, status, whole.headers(), &body),
        response: whole.into(),
    })
}

//! The same policy as a tower layer.

use std::error::Error;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::SystemTime;

use bytes::Bytes;
use http::{Request, Response};
use http_body::Body;
use http_body_util::{BodyExt as _, Either, Full};
use tower_layer::Layer;
use tower_service::Service;

use crate::exchange::{Exchange, Outcome};
use crate::failure::{Failure, Reason};
use crate::key::{KeyStore, Keys, Operation};
use crate::policy::Policy;
use crate::retry_after::retry_after;
use crate::schedule::Schedule;
use crate::verdict::{Verdict, depends_on_code};

type BoxError = Box<dyn Error + Send + Sync>;

/// The body of a response: complete for a write or a client error, and passed on otherwise.
pub type ReplyBody<B> = Either<Full<Bytes>, B>;

/// Layer that gives each write a key and retries, for a client that is a tower service.
///
/// The body of the request must be `Clone`, such as `Full<Bytes>`, so a body that cannot be sent twice does not compile. All
/// tries of an operation call the same instance of the inner service. The deadline also limits the time until the service is
/// ready for another try.
///
/// Put a layer that follows redirects *outside* this layer: each redirected request is then an operation with its own key,
/// unless the caller set a key. Let that layer follow redirects only at the same origin, as `FollowRedirect` of tower-http
/// does with its policy `SameOrigin`. Otherwise, that layer sends a key that the caller set to the other origin. If it also
/// copies the [`Operation`], the key from the key store reaches the other origin too.
///
/// Put a layer that refreshes an expired token and sends the request again *inside* this layer, where it sends the same key.
/// Outside, it would start a new operation: see [`ResponseExt::is_outcome_unknown`](crate::ResponseExt::is_outcome_unknown).
///
/// The future of a call is not cancel-safe: when it is dropped, nobody knows whether the operation happened.
///
/// ```
/// use bytes::Bytes;
/// use http::{Request, Response};
/// use http_body_util::Full;
/// use idem_client::{Policy, ResponseExt as _, RetryLayer};
/// use tower::{Service as _, ServiceBuilder, ServiceExt as _};
///
/// # #[tokio::main(flavor = "current_thread", start_paused = true)]
/// # async fn main() {
/// let http = tower::service_fn(|request: Request<Full<Bytes>>| async move {
///     assert!(request.headers().contains_key("idempotency-key"));
///     Ok::<_, std::io::Error>(Response::new(Full::new(Bytes::from("ok"))))
/// });
/// let mut client = ServiceBuilder::new().layer(RetryLayer::new(Policy::default())).service(http);
/// let request = Request::post("/orders").body(Full::from("tea")).unwrap();
/// let response = client.ready().await.unwrap().call(request).await.unwrap();
/// assert_eq!(response.tries(), 1);
/// # }
/// ```
#[derive(Clone, Debug, Default)]
pub struct RetryLayer {
    policy: Arc<Policy>,
    keys: Keys,
}

impl RetryLayer {
    /// Returns a layer with this policy.
    #[must_use]
    pub fn new(policy: Policy) -> Self {
        Self {
            policy: Arc::new(policy),
            keys: Keys::default(),
        }
    }

    /// Sets the store that keeps the keys of named operations across a crash.
    #[must_use]
    pub fn key_store(mut self, store: impl KeyStore) -> Self {
        self.keys = Keys(Some(Arc::new(store)));
        self
    }
}

impl<S> Layer<S> for RetryLayer {
    type Service = RetryService<S>;

    fn layer(&self, inner: S) -> Self::Service {
        RetryService {
            inner,
            layer: self.clone(),
        }
    }
}

/// The service of [`RetryLayer`].
#[derive(Clone, Debug)]
pub struct RetryService<S> {
    inner: S,
    layer: RetryLayer,
}

impl<S, B, R> Service<Request<B>> for RetryService<S>
where
    S: Service<Request<B>, Response = Response<R>> + Clone + Send + 'static,
    S::Error: Into<BoxError> + Send,
    S::Future: Send,
    B: Clone + Send + 'static,
    R: Body<Data = Bytes> + Send + 'static,
    R::Error: Into<BoxError>,
{
    type Response = Response<ReplyBody<R>>;
    type Error = Failure;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Failure>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Failure>> {
        let ready = self.inner.poll_ready(cx);
        ready.map_err(|error| Failure::new(Reason::Transport).caused_by(error))
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        // The clone may not be ready, so this call uses the service that is.
        let clone = self.inner.clone();
        let ready = std::mem::replace(&mut self.inner, clone);
        let layer = self.layer.clone();
        Box::pin(async move { layer.send(ready, request).await })
    }
}

impl RetryLayer {
    async fn send<S, B, R>(
        self,
        mut ready: S,
        mut request: Request<B>,
    ) -> Result<Response<ReplyBody<R>>, Failure>
    where
        S: Service<Request<B>, Response = Response<R>> + Clone,
        S::Error: Into<BoxError>,
        B: Clone,
        R: Body<Data = Bytes>,
        R::Error: Into<BoxError>,
    {
        let policy = &*self.policy;
        let operation = request.extensions().get::<Operation>().cloned();
        let method = request.method().clone();
        let assigned = self
            .keys
            .assign(policy, &method, request.headers_mut(), operation.as_ref())
            .await?;
        let mut outcome = Outcome::before(&method, &assigned);
        let key = assigned.key;
        let is_repeatable = key.is_some() || method.is_safe();
        let mut schedule = Schedule::start(policy);
        loop {
            let limit = schedule.next_try();
            let copy = request.clone();
            let sending = async {
                let response = ready.call(copy).await.map_err(Into::into)?;
                read_response(policy, response, !method.is_safe()).await
            };
            let result = match tokio::time::timeout(limit, sending).await {
                Ok(Ok(reply)) => Ok(reply),
                Ok(Err(error)) => Err(Failure::new(Reason::Transport).caused_by(error)),
                Err(_) => Err(Failure::new(Reason::TimedOut)),
            };
            let (verdict, asked_for) = match &result {
                Ok(reply) => (
                    reply.verdict,
                    retry_after(reply.response.headers(), SystemTime::now()),
                ),
                Err(_) => (Verdict::LOST, None),
            };
            outcome.note(verdict.leaves_open);
            if verdict.is_temporary && is_repeatable && schedule.wait(asked_for).await {
                let is_ready = poll_fn(|cx| ready.poll_ready(cx));
                match tokio::time::timeout(schedule.left(), is_ready).await {
                    Ok(Ok(())) => continue,
                    Ok(Err(error)) => {
                        let failure = Failure::new(Reason::Transport).caused_by(error);
                        return Err(failure.of_operation(key.as_deref(), schedule.tries));
                    }
                    // The operation ends at its deadline with what the last try got.
                    Err(_) => {}
                }
            }
            return match result {
                Ok(Reply { mut response, .. }) => {
                    let exchange = Exchange::new(
                        policy,
                        key,
                        schedule.tries,
                        &outcome,
                        response.status(),
                        response.headers(),
                    );
                    response.extensions_mut().insert(exchange);
                    Ok(response)
                }
                Err(failure) => Err(failure.of_operation(key.as_deref(), schedule.tries)),
            };
        }
    }
}

/// The response to one try.
struct Reply<R> {
    response: Response<ReplyBody<R>>,
    verdict: Verdict,
}

/// Reads the whole response, if it is a response to a write or a client error.
async fn read_response<R>(
    policy: &Policy,
    response: Response<R>,
    is_write: bool,
) -> Result<Reply<R>, BoxError>
where
    R: Body<Data = Bytes>,
    R::Error: Into<BoxError>,
{
    let status = response.status();
    if !is_write && !depends_on_code(status) {
        return Ok(Reply {
            verdict: Verdict::on(policy, status, response.headers(), &[]),
            response: response.map(Either::Right),
        });
    }
    let (parts, body) = response.into_parts();
    let body = body.collect().await.map_err(Into::into)?.to_bytes();
    Ok(Reply {
        verdict: Verdict::on(policy, status, &parts.headers, &body),
        response: Response::from_parts(parts, Either::Left(Full::new(body))),
    })
}

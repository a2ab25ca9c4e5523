//! A proxy that forwards every request and loses a third of the responses.

use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use axum::body::{Body, Bytes};
use futures_util::stream;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, TcpStream};

/// A running proxy.
#[derive(Clone, Debug)]
pub(crate) struct FaultProxy {
    address: SocketAddr,
    requests: Arc<AtomicUsize>,
    upstreams: Arc<Mutex<Vec<SocketAddr>>>,
}

impl FaultProxy {
    /// Listens on a free loopback port in front of `upstreams`, which get the requests in turn.
    pub(crate) async fn start(upstreams: Vec<SocketAddr>) -> io::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let requests = Arc::new(AtomicUsize::new(0));
        let proxy = Self {
            address,
            requests,
            upstreams: Arc::new(Mutex::new(upstreams)),
        };
        tokio::spawn(proxy.clone().serve(listener));
        Ok(proxy)
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// The number of forwarded requests.
    pub(crate) fn requests(&self) -> usize {
        self.requests.load(Ordering::SeqCst)
    }

    /// Replaces the server at this place, after it was started again elsewhere.
    #[allow(
        dead_code,
        reason = "only a test of several processes replaces servers"
    )]
    pub(crate) fn replace(&self, at: usize, upstream: SocketAddr) {
        let mut upstreams = self
            .upstreams
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        upstreams[at] = upstream;
    }

    fn upstream(&self, number: usize) -> SocketAddr {
        let upstreams = self
            .upstreams
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        upstreams[number % upstreams.len()]
    }

    async fn serve(self, listener: TcpListener) {
        while let Ok((stream, _)) = listener.accept().await {
            let proxy = self.clone();
            let service = service_fn(move |request| proxy.clone().relay(request));
            let connection = hyper::server::conn::http1::Builder::new()
                .serve_connection(TokioIo::new(stream), service);
            // An error here is a lost response, which is the purpose of this proxy.
            tokio::spawn(async move { connection.await.ok() });
        }
    }

    /// Loses every third response: alternately the whole response, and the second half of its body.
    async fn relay(self, request: Request<Incoming>) -> io::Result<Response<Body>> {
        let number = self.requests.fetch_add(1, Ordering::SeqCst) + 1;
        let forwarded = forward(request, self.upstream(number)).await;
        let response = forwarded.map_err(io::Error::other)?;
        match number % 6 {
            3 => Err(lost()),
            0 => Ok(response.map(|body| cut_off(&body))),
            _ => Ok(response.map(Body::from)),
        }
    }
}

/// Sends the request to `upstream` on a new connection, and waits for the whole response.
async fn forward(
    request: Request<Incoming>,
    upstream: SocketAddr,
) -> Result<Response<Bytes>, Box<dyn std::error::Error + Send + Sync>> {
    let (parts, body) = request.into_parts();
    let body = Full::new(body.collect().await?.to_bytes());
    let stream = TokioIo::new(TcpStream::connect(upstream).await?);
    let (mut sender, connection) = hyper::client::conn::http1::handshake(stream).await?;
    tokio::spawn(connection);
    let response = sender
        .send_request(Request::from_parts(parts, body))
        .await?;
    let (parts, body) = response.into_parts();
    Ok(Response::from_parts(
        parts,
        body.collect().await?.to_bytes(),
    ))
}

fn cut_off(body: &Bytes) -> Body {
    let half = body.slice(..body.len() / 2);
    Body::from_stream(stream::iter([Ok(half), Err(lost())]))
}

fn lost() -> io::Error {
    io::ErrorKind::ConnectionReset.into()
}

//! A server that sends scripted responses and notes each request.
#![allow(dead_code, reason = "no suite uses everything")]

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// What the server sends after it has read a request.
pub(crate) enum Reply {
    /// Closes the connection afterwards. A text that is shorter than its `Content-Length` is cut off.
    Closed(String),
    /// Resets the connection afterwards.
    Reset(String),
    /// Sends one more byte every few milliseconds, for ever.
    Drip(String),
}

impl From<String> for Reply {
    fn from(text: String) -> Self {
        Self::Closed(text)
    }
}

impl From<&str> for Reply {
    fn from(text: &str) -> Self {
        Self::Closed(text.to_owned())
    }
}

#[derive(Clone)]
pub(crate) struct Scripted {
    address: SocketAddr,
    requests: Arc<Mutex<Vec<Received>>>,
}

#[derive(Clone)]
struct Received {
    head: String,
    body: Vec<u8>,
}

impl Scripted {
    /// Sends one of `replies` on each connection. An empty reply closes the connection without a response. After the
    /// last reply, connections are refused.
    pub(crate) async fn start<A: Into<Reply>>(replies: impl IntoIterator<Item = A>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        Self::on(listener, replies)
    }

    /// The same on a socket that listens already.
    pub(crate) fn on<A: Into<Reply>>(
        listener: TcpListener,
        replies: impl IntoIterator<Item = A>,
    ) -> Self {
        let server = Self {
            address: listener.local_addr().expect("a bound address"),
            requests: Arc::default(),
        };
        let replies: Vec<Reply> = replies.into_iter().map(Into::into).collect();
        tokio::spawn(server.clone().serve(listener, replies));
        server
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}/", self.address)
    }

    /// The method and the path of each request so far.
    pub(crate) fn lines(&self) -> Vec<String> {
        let line = |request: &Received| {
            let line = request.head.split(" HTTP/").next();
            line.expect("a line").to_owned()
        };
        self.received().iter().map(line).collect()
    }

    /// The body of each request so far.
    pub(crate) fn bodies(&self) -> Vec<Vec<u8>> {
        let received = self.received().into_iter();
        received.map(|request| request.body).collect()
    }

    fn received(&self) -> Vec<Received> {
        self.requests.lock().expect("no panic").clone()
    }

    /// The values of one header in each request so far.
    pub(crate) fn values(&self, name: &str) -> Vec<Option<String>> {
        let value = |request: &Received| {
            let value = |line: &str| {
                line.strip_prefix(name)?
                    .strip_prefix(": ")
                    .map(str::to_owned)
            };
            request.head.lines().find_map(value)
        };
        self.received().iter().map(value).collect()
    }

    /// The key of each request so far.
    pub(crate) fn keys(&self) -> Vec<Option<String>> {
        self.values("idempotency-key")
    }

    async fn serve(self, listener: TcpListener, replies: Vec<Reply>) {
        for reply in replies {
            let (mut stream, _) = listener.accept().await.expect("a client");
            let request = read_request(&mut stream).await;
            self.requests.lock().expect("no panic").push(request);
            let (Reply::Closed(text) | Reply::Reset(text) | Reply::Drip(text)) = &reply;
            let sent = stream.write_all(text.as_bytes()).await;
            sent.expect("the client reads the response");
            match reply {
                Reply::Closed(_) => {}
                Reply::Reset(_) => stream.set_zero_linger().expect("an open connection"),
                Reply::Drip(_) => {
                    tokio::spawn(async move {
                        while stream.write_all(b"x").await.is_ok() {
                            tokio::time::sleep(Duration::from_millis(5)).await;
                        }
                    });
                }
            }
        }
    }
}

/// Reads a whole request. Closing a connection with unread bytes would reset the connection,
/// and the client would lose the response.
async fn read_request(stream: &mut TcpStream) -> Received {
    let mut request = Vec::new();
    loop {
        let read = stream.read_buf(&mut request).await;
        assert_ne!(read.expect("the read succeeds"), 0, "a whole request");
        let Some(end) = request.windows(4).position(|four| four == b"\r\n\r\n") else {
            continue;
        };
        let (head, body) = (&request[..end], &request[end + 4..]);
        let head = String::from_utf8_lossy(head);
        let announced = head
            .lines()
            .find_map(|line| line.strip_prefix("content-length: "));
        if body.len() >= announced.map_or(0, |length| length.parse().expect("a number")) {
            return Received {
                head: head.into_owned(),
                body: body.to_vec(),
            };
        }
    }
}

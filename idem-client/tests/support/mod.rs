//! A server that sends scripted responses and notes the head of each request.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

#[derive(Clone)]
pub(crate) struct Scripted {
    address: SocketAddr,
    heads: Arc<Mutex<Vec<String>>>,
}

impl Scripted {
    /// Sends one of `answers` on each connection and closes the connection. An answer that is shorter than its
    /// `Content-Length` is cut off. An empty answer closes the connection without a response. After the last answer,
    /// connections are refused.
    pub(crate) async fn start<A: Into<String>>(answers: impl IntoIterator<Item = A>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let server = Self {
            address: listener.local_addr().expect("a bound address"),
            heads: Arc::default(),
        };
        let answers: Vec<String> = answers.into_iter().map(Into::into).collect();
        tokio::spawn(server.clone().serve(listener, answers));
        server
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}/", self.address)
    }

    /// The method and the path of each request so far.
    pub(crate) fn lines(&self) -> Vec<String> {
        let heads = self.heads.lock().expect("no panic");
        let line = |head: &String| head.split(" HTTP/").next().expect("a line").to_owned();
        heads.iter().map(line).collect()
    }

    /// The values of one header in each request so far.
    pub(crate) fn values(&self, name: &str) -> Vec<Option<String>> {
        let heads = self.heads.lock().expect("no panic");
        let value = |head: &String| {
            let value = |line: &str| {
                line.strip_prefix(name)?
                    .strip_prefix(": ")
                    .map(str::to_owned)
            };
            head.lines().find_map(value)
        };
        heads.iter().map(value).collect()
    }

    /// The key of each request so far.
    pub(crate) fn keys(&self) -> Vec<Option<String>> {
        self.values("idempotency-key")
    }

    async fn serve(self, listener: TcpListener, answers: Vec<String>) {
        for answer in answers {
            let (mut stream, _) = listener.accept().await.expect("a client");
            let head = read_request(&mut stream).await;
            self.heads.lock().expect("no panic").push(head);
            stream
                .write_all(answer.as_bytes())
                .await
                .expect("the client reads the response");
        }
    }
}

/// Reads a whole request and returns its head. Closing a connection with unread bytes would reset the connection,
/// and the client would lose the response.
async fn read_request(stream: &mut TcpStream) -> String {
    let mut request = Vec::new();
    loop {
        let read = stream.read_buf(&mut request).await;
        assert_ne!(read.expect("the read succeeds"), 0, "a whole request");
        let text = String::from_utf8_lossy(&request);
        let Some((head, body)) = text.split_once("\r\n\r\n") else {
            continue;
        };
        let announced = head
            .lines()
            .find_map(|line| line.strip_prefix("content-length: "));
        if body.len() >= announced.map_or(0, |length| length.parse().expect("a number")) {
            return head.to_owned();
        }
    }
}

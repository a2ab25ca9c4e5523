//! A server that sends scripted responses and notes the key of each request.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

#[derive(Clone)]
pub(crate) struct Scripted {
    address: SocketAddr,
    keys: Arc<Mutex<Vec<Option<String>>>>,
}

impl Scripted {
    /// Sends one of `answers` on each connection and closes the connection. An answer that is shorter
    /// than its `Content-Length` is cut off. An empty answer closes the connection without a response.
    pub(crate) async fn start<'a>(answers: impl AsRef<[&'a str]>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("a valid address");
        let server = Self {
            address,
            keys: Arc::default(),
        };
        let answers: Vec<_> = answers
            .as_ref()
            .iter()
            .map(|answer| (*answer).to_owned())
            .collect();
        tokio::spawn(server.clone().serve(listener, answers));
        server
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}/", self.address)
    }

    /// The key of each request so far.
    pub(crate) fn keys(&self) -> Vec<Option<String>> {
        self.keys.lock().expect("no panic").clone()
    }

    async fn serve(self, listener: TcpListener, answers: Vec<String>) {
        for answer in answers {
            let (mut stream, _) = listener.accept().await.expect("a client");
            let request = read_request(&mut stream).await;
            let key = request
                .lines()
                .find_map(|line| line.strip_prefix("idempotency-key: "));
            self.keys
                .lock()
                .expect("no panic")
                .push(key.map(str::to_owned));
            stream
                .write_all(answer.as_bytes())
                .await
                .expect("the client reads the response");
        }
    }
}

/// Reads a whole request. Closing a connection with unread bytes would reset the connection, and the
/// client would lose the response.
async fn read_request(stream: &mut TcpStream) -> String {
    let mut request = Vec::new();
    loop {
        assert_ne!(
            stream
                .read_buf(&mut request)
                .await
                .expect("the read succeeds"),
            0,
            "a whole request"
        );
        let text = String::from_utf8_lossy(&request);
        let Some((head, body)) = text.split_once("\r\n\r\n") else {
            continue;
        };
        let announced = head
            .lines()
            .find_map(|line| line.strip_prefix("content-length: "));
        if body.len() >= announced.map_or(0, |length| length.parse().expect("a number")) {
            return text.into_owned();
        }
    }
}

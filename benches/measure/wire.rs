//! A cheap client: it sends fixed bytes and reads only the length of each response.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{Ipv4Addr, TcpStream};

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::contenders::Key;

/// The bytes of a request of 200 bytes. Only its key changes.
#[derive(Clone)]
pub(crate) struct Request {
    bytes: Vec<u8>,
    key_at: usize,
    key: Key,
}

impl Request {
    pub(crate) fn new(key: Key, body: &str) -> Self {
        let mut head = String::from(
            "POST /trades HTTP/1.1\r\nhost: localhost\r\n\
             authorization: Bearer 0123456789abcdef0123456789abcdef\r\n\
             content-type: application/json\r\n",
        );
        if key(0).is_some() {
            head += "idempotency-key: 8e03978e-40d5-43e8-bc93-";
        }
        let key_at = head.len();
        if key(0).is_some() {
            head += "000000000000\r\n";
        }
        let bytes = format!("{head}content-length: {}\r\n\r\n{body}", body.len()).into_bytes();
        Self { bytes, key_at, key }
    }

    /// Returns the bytes of the `n`th request.
    pub(crate) fn nth(&mut self, n: u64) -> &[u8] {
        if let Some(key) = (self.key)(n) {
            let place = &mut self.bytes[self.key_at..self.key_at + 12];
            write!(&mut &mut *place, "{key:012x}").expect("the key has a fixed length");
        }
        &self.bytes
    }
}

/// Finds the end of a response. This is fast when the response is as long as the response before.
#[derive(Clone, Default)]
pub(crate) struct Answer {
    bytes: Vec<u8>,
    head: usize,
    whole: usize,
}

const END_OF_HEAD: &[u8] = b"\r\n\r\n";

impl Answer {
    /// Adds bytes that have arrived. Returns whether the response is complete.
    ///
    /// # Panics
    ///
    /// Panics when the status is not 201, or when more than one response has arrived.
    fn take(&mut self, arrived: &[u8]) -> bool {
        self.bytes.extend_from_slice(arrived);
        let is_as_before = self.head > 0
            && self.bytes.len() >= self.head
            && self.bytes[..self.head].ends_with(END_OF_HEAD);
        if !is_as_before {
            let Some(head) = position(&self.bytes, END_OF_HEAD) else {
                return false;
            };
            self.head = head + END_OF_HEAD.len();
            let length = position(&self.bytes, b"content-length: ").expect("a length") + 16;
            let digits = self.bytes[length..]
                .iter()
                .take_while(|it| it.is_ascii_digit());
            let length = digits.fold(0, |length, digit| length * 10 + usize::from(digit - b'0'));
            self.whole = self.head + length;
        }
        if self.bytes.len() < self.whole {
            return false;
        }
        let text = || String::from_utf8_lossy(&self.bytes);
        assert!(self.bytes.starts_with(b"HTTP/1.1 201"), "{}", text());
        assert_eq!(self.bytes.len(), self.whole, "{}", text());
        self.bytes.clear();
        true
    }
}

fn position(bytes: &[u8], part: &[u8]) -> Option<usize> {
    bytes.windows(part.len()).position(|window| window == part)
}

pub(crate) fn connect(port: u16) -> TcpStream {
    let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).expect("the server listens");
    stream.set_nodelay(true).expect("a socket");
    stream.set_nonblocking(true).expect("a socket");
    stream
}

/// A connection with async reads.
pub(crate) struct Awaited {
    stream: tokio::net::TcpStream,
    request: Request,
    answer: Answer,
}

impl Awaited {
    pub(crate) fn new(port: u16, request: Request) -> Self {
        Self {
            stream: tokio::net::TcpStream::from_std(connect(port)).expect("a socket"),
            request,
            answer: Answer::default(),
        }
    }

    /// Sends the `n`th request and reads its response.
    pub(crate) async fn ask(&mut self, n: u64) {
        let sent = self.stream.write_all(self.request.nth(n)).await;
        sent.expect("the server reads");
        let mut buffer = [0; 4096];
        loop {
            let length = self.stream.read(&mut buffer).await.expect("a response");
            assert!(length > 0, "the server closed the connection");
            if self.answer.take(&buffer[..length]) {
                return;
            }
        }
    }
}

/// A connection that is polled.
pub(crate) struct Polled {
    stream: TcpStream,
    request: Request,
    answer: Answer,
}

impl Polled {
    pub(crate) fn new(port: u16, request: Request) -> Self {
        Self {
            stream: connect(port),
            request,
            answer: Answer::default(),
        }
    }

    /// Sends the `n`th request. The buffer of the socket has room for it.
    pub(crate) fn send(&mut self, n: u64) {
        self.stream
            .write_all(self.request.nth(n))
            .expect("the server reads");
    }

    /// Reads from the socket, and returns whether the response is complete.
    pub(crate) fn has_answered(&mut self) -> bool {
        let mut buffer = [0; 4096];
        match self.stream.read(&mut buffer) {
            Ok(0) => panic!("the server closed the connection"),
            Ok(length) => self.answer.take(&buffer[..length]),
            Err(error) if error.kind() == ErrorKind::WouldBlock => false,
            Err(error) => panic!("{}", io::Error::other(error)),
        }
    }
}

//! As much of HTTP/1.1 (RFC 9112) as a collector needs, on a connection that is kept.
//!
//! Of an answer the status, `Pull-Next` and the body are looked at. A client library would parse all headers into a map
//! and hand each request to a task of its own; the time for that would be missing for what is measured.

use eclusa_bench::http::Target;
use memchr::memmem;
use std::fmt::Write as _;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// Room for an answer of ten messages.
const ROOM: usize = 8 * 1024;

/// How many messages an answer may have.
#[derive(Clone, Copy)]
pub enum Accept {
    One,
    Many,
}

impl Accept {
    fn header(self) -> &'static str {
        match self {
            Self::One => "application/json",
            Self::Many => "multipart/json",
        }
    }
}

/// A connection of a collector.
pub struct Connection {
    stream: TcpStream,
    host: String,
    accept: Accept,
    request: String,
    buffer: Vec<u8>,
}

/// What the server said.
#[derive(Debug)]
pub struct Answer<'a> {
    pub status: u16,
    /// `Pull-Next`.
    pub next: Option<&'a str>,
    pub body: &'a [u8],
}

impl Answer<'_> {
    /// The path of the next call.
    pub fn next(&self) -> String {
        self.next.expect("an answer has Pull-Next").to_owned()
    }

    /// The body, for a message about what went wrong.
    pub fn text(&self) -> String {
        format!("{} {}", self.status, String::from_utf8_lossy(self.body))
    }
}

impl Connection {
    pub async fn open(target: &Target, accept: Accept) -> Self {
        let stream = TcpStream::connect(target.address).await.expect("connects");
        stream.set_nodelay(true).expect("a socket");
        Self {
            stream,
            host: target.host.clone(),
            accept,
            request: String::new(),
            buffer: Vec::with_capacity(ROOM),
        }
    }

    pub async fn get(&mut self, path: &str) -> Answer<'_> {
        self.ask("GET", path).await
    }

    pub async fn delete(&mut self, path: &str) -> Answer<'_> {
        self.ask("DELETE", path).await
    }

    async fn ask(&mut self, method: &str, path: &str) -> Answer<'_> {
        self.request.clear();
        write!(
            self.request,
            "{method} {path} HTTP/1.1\r\nhost: {}\r\naccept: {}\r\n\r\n",
            self.host,
            self.accept.header()
        )
        .unwrap();
        let sent = self.stream.write_all(self.request.as_bytes()).await;
        sent.expect("the server takes a request");
        self.buffer.clear();
        let body = loop {
            let read = self.stream.read_buf(&mut self.buffer).await;
            assert!(
                read.expect("the server answers") > 0,
                "the server has closed the connection after {method} {path}"
            );
            if let Some(at) = memmem::find(&self.buffer, b"\r\n\r\n") {
                let length = header(head(&self.buffer[..at]), "content-length");
                let length: usize = length.map_or(0, |length| length.parse().unwrap());
                if self.buffer.len() >= at + 4 + length {
                    break at + 4;
                }
            }
        };
        let (head, body) = (head(&self.buffer[..body]), &self.buffer[body..]);
        let status = head
            .strip_prefix("HTTP/1.1 ")
            .and_then(|rest| rest.get(..3));
        Answer {
            status: status.expect("a status").parse().unwrap(),
            next: header(head, "pull-next"),
            body,
        }
    }
}

fn head(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).expect("a head of ASCII")
}

/// The value of a header.
fn header<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    let mut lines = head.split("\r\n").filter_map(|line| line.split_once(':'));
    let (_, value) = lines.find(|(found, _)| found.eq_ignore_ascii_case(name))?;
    Some(value.trim())
}

//! As much of HTTP/1.1 (RFC 9112) as a load generator needs: a request that is there already goes
//! out, and of the answer only the status, the length and the body are looked at. A client library
//! would cost more processor time than what is to be measured.

use anyhow::{Context as _, bail};
use memchr::memmem;
use std::net::SocketAddr;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// Largest answer that is read.
const MAX_ANSWER: usize = 64 * 1024 * 1024;
/// How long a single question may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// The server, and how it is to be addressed.
#[derive(Debug, Clone)]
pub struct Target {
    pub address: SocketAddr,
    /// What stands in the `Host` header.
    pub host: String,
    /// API key, if it wants one.
    pub key: Option<String>,
}

impl Target {
    /// A server that this process has started.
    pub fn local(address: SocketAddr) -> Self {
        Self {
            address,
            host: address.to_string(),
            key: None,
        }
    }

    /// A server by its URL, such as `http://127.0.0.1:3000`.
    ///
    /// # Errors
    /// When it is another kind of URL, or its name cannot be resolved.
    pub async fn of_url(url: &str, key: Option<String>) -> anyhow::Result<Self> {
        let Some(rest) = url.strip_prefix("http://") else {
            bail!("the URL {url} must begin with http:// (the load generator speaks no TLS)");
        };
        let host = rest.trim_end_matches('/').to_owned();
        if host.contains('/') {
            bail!("the URL {url} must end with host and port; the path is /v1/events");
        }
        let with_port = if host.rsplit(']').next().unwrap_or(&host).contains(':') {
            host.clone()
        } else {
            format!("{host}:80")
        };
        let address = tokio::net::lookup_host(&with_port)
            .await
            .with_context(|| format!("cannot resolve {host}"))?
            .next()
            .with_context(|| format!("{host} has no address"))?;
        Ok(Self { address, host, key })
    }

    /// The head of a `POST /v1/events` with a body of this length.
    pub fn post_head(&self, length: usize) -> String {
        format!(
            "POST /v1/events HTTP/1.1\r\nhost: {}\r\n{}content-type: application/json\r\n\
             content-length: {length}\r\n\r\n",
            self.host,
            self.authorization()
        )
    }

    fn authorization(&self) -> String {
        self.key.as_ref().map_or_else(String::new, |key| {
            format!("authorization: Bearer {key}\r\n")
        })
    }

    /// Connects.
    ///
    /// # Errors
    /// The system's.
    pub async fn connect(&self) -> std::io::Result<Connection> {
        let stream = TcpStream::connect(self.address).await?;
        stream.set_nodelay(true)?;
        Ok(Connection {
            stream,
            buffer: vec![0; 8 * 1024],
        })
    }

    /// One `GET` on a connection of its own: status and body.
    ///
    /// # Errors
    /// When there is no answer within ten seconds, or none that is HTTP.
    pub async fn get(&self, path: &str) -> anyhow::Result<(u16, String)> {
        let request = format!(
            "GET {path} HTTP/1.1\r\nhost: {}\r\n{}connection: close\r\n\r\n",
            self.host,
            self.authorization()
        );
        let asked = async {
            let mut connection = self.connect().await?;
            let answer = connection.exchange(request.as_bytes()).await?;
            let text = String::from_utf8_lossy(answer.body).into_owned();
            anyhow::Ok((answer.status, text))
        };
        match tokio::time::timeout(PATIENCE, asked).await {
            Ok(answer) => answer.with_context(|| format!("no answer to GET {path}")),
            Err(_) => bail!("no answer to GET {path} within {PATIENCE:?}"),
        }
    }
}

/// A connection that is kept.
#[derive(Debug)]
pub struct Connection {
    stream: TcpStream,
    buffer: Vec<u8>,
}

/// What a server said.
#[derive(Debug, PartialEq, Eq)]
pub struct Answer<'a> {
    pub status: u16,
    pub body: &'a [u8],
    /// The server closes the connection.
    pub closes: bool,
}

impl Connection {
    /// Sends a request and reads its answer.
    ///
    /// # Errors
    /// When the connection breaks, or the answer is none that is understood here.
    pub async fn exchange(&mut self, request: &[u8]) -> std::io::Result<Answer<'_>> {
        self.stream.write_all(request).await?;
        let mut filled = 0;
        let (head, end) = loop {
            if filled == self.buffer.len() {
                if filled >= MAX_ANSWER {
                    return Err(std::io::Error::other("the answer is too long"));
                }
                self.buffer.resize(filled * 2, 0);
            }
            let room = self.buffer.get_mut(filled..).unwrap_or_default();
            let read = self.stream.read(room).await?;
            if read == 0 {
                return Err(std::io::ErrorKind::UnexpectedEof.into());
            }
            filled += read;
            let so_far = self.buffer.get(..filled).unwrap_or_default();
            if let Some(head) = Head::read(so_far)? {
                let end = head.body + head.length;
                if filled >= end {
                    break (head, end);
                }
            }
        };
        Ok(Answer {
            status: head.status,
            body: self.buffer.get(head.body..end).unwrap_or_default(),
            closes: head.closes,
        })
    }
}

#[derive(Debug, PartialEq, Eq)]
struct Head {
    status: u16,
    /// Where the body begins.
    body: usize,
    /// How long it is.
    length: usize,
    closes: bool,
}

impl Head {
    /// The head, if it is there as a whole.
    fn read(bytes: &[u8]) -> std::io::Result<Option<Self>> {
        let invalid = || std::io::Error::from(std::io::ErrorKind::InvalidData);
        let Some(end) = memmem::find(bytes, b"\r\n\r\n") else {
            return Ok(None);
        };
        let head = bytes.get(..end).unwrap_or_default();
        let status = head
            .strip_prefix(b"HTTP/1.1 ")
            .or_else(|| head.strip_prefix(b"HTTP/1.0 "))
            .and_then(|rest| number(rest.get(..3)?))
            .ok_or_else(invalid)?;
        let mut found = Self {
            status: u16::try_from(status).map_err(|_| invalid())?,
            body: end + 4,
            length: 0,
            closes: false,
        };
        let mut rest = head;
        while let Some(at) = memmem::find(rest, b"\r\n") {
            rest = rest.get(at + 2..).unwrap_or_default();
            let line = rest.split(|byte| *byte == b'\r').next().unwrap_or_default();
            if let Some(value) = field(line, b"content-length") {
                found.length = number(value).ok_or_else(invalid)?;
            } else if let Some(value) = field(line, b"connection") {
                found.closes = value.eq_ignore_ascii_case(b"close");
            } else if field(line, b"transfer-encoding").is_some() {
                return Err(std::io::Error::other("answers in chunks are not read"));
            }
        }
        Ok(Some(found))
    }
}

/// The value of a header line, if it is the one of this name.
fn field<'a>(line: &'a [u8], name: &[u8]) -> Option<&'a [u8]> {
    let (start, rest) = line.split_at_checked(name.len())?;
    if !start.eq_ignore_ascii_case(name) {
        return None;
    }
    Some(rest.strip_prefix(b":")?.trim_ascii())
}

fn number(digits: &[u8]) -> Option<usize> {
    std::str::from_utf8(digits).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::net::TcpListener;

    #[test]
    fn heads_are_read_when_they_are_complete() {
        let text = b"HTTP/1.1 202 Accepted\r\nContent-Length: 12\r\ndate: x\r\n\r\nrest";
        for end in 0..text.len() - 5 {
            assert_eq!(Head::read(&text[..end]).unwrap(), None);
        }
        let head = Head::read(text).unwrap().unwrap();
        assert_eq!(
            (head.status, head.length, head.body),
            (202, 12, text.len() - 4)
        );
        assert!(!head.closes);
        let closing = b"HTTP/1.1 503 x\r\nconnection: close\r\ncontent-length:0\r\n\r\n";
        assert!(Head::read(closing).unwrap().unwrap().closes);
        for bad in [
            &b"SSH-2.0\r\n\r\n"[..],
            b"HTTP/1.1 20\r\n\r\n",
            b"HTTP/1.1 200 OK\r\ncontent-length: many\r\n\r\n",
            b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n",
        ] {
            assert!(Head::read(bad).is_err());
        }
    }

    #[tokio::test]
    async fn answers_in_pieces_are_put_together_one_after_the_other() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let target = Target::local(listener.local_addr().unwrap());
        let server = async {
            let (mut stream, _) = listener.accept().await.unwrap();
            for body in ["first", &"x".repeat(20_000)] {
                let mut request = [0; 64];
                assert!(stream.read(&mut request).await.unwrap() > 0);
                let text = format!(
                    "HTTP/1.1 202 A\r\ncontent-length: {}\r\n\r\n{body}",
                    body.len()
                );
                for piece in text.as_bytes().chunks(7_000) {
                    stream.write_all(piece).await.unwrap();
                    tokio::task::yield_now().await;
                }
            }
        };
        let client = async {
            let mut connection = target.connect().await.unwrap();
            let answer = connection.exchange(b"hello").await.unwrap();
            assert_eq!((answer.status, answer.body), (202, &b"first"[..]));
            let answer = connection.exchange(b"hello").await.unwrap();
            assert_eq!(answer.body.len(), 20_000);
            assert!(connection.exchange(b"hello").await.is_err());
        };
        futures::join!(server, client);
    }

    #[tokio::test]
    async fn urls_that_cannot_be_driven_are_refused() {
        for bad in ["https://h", "h:80", "http://127.0.0.1:1/v1/events"] {
            assert!(Target::of_url(bad, None).await.is_err(), "{bad}");
        }
        let target = Target::of_url("http://127.0.0.1:3000/", None)
            .await
            .unwrap();
        assert_eq!(target.address.port(), 3000);
    }
}

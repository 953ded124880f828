//! Which broker is at the other end, asked before the real connection is made.
//!
//! Versions differ in what a queue argument means (`x-delivery-limit = -1` is "none" on 4.0 and
//! later and "at once" on 3.10), and lapin keeps the server's properties to itself. So a throwaway
//! connection reads the one frame in which the broker introduces itself (AMQP 0-9-1, section
//! 2.2.4: protocol header, then `connection.start`).

use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// Major and minor version of the broker.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct ServerVersion {
    /// As in 3 of 3.10.8.
    pub major: u32,
    /// As in 10 of 3.10.8.
    pub minor: u32,
}

/// Method frame, channel 0, class 10 (connection), method 10 (start).
const START: [u8; 4] = [0, 10, 0, 10];
/// No `connection.start` is anywhere near this long.
const MAX_FRAME: usize = 64 * 1024;

impl ServerVersion {
    /// Whether `x-delivery-limit = -1` switches the broker's own limit off here.
    pub fn delivery_limit_can_be_switched_off(self) -> bool {
        self.major >= 4
    }
}

/// Asks a broker that speaks plain TCP. `None` when it does not say, or says it in another shape.
pub async fn ask(host: &str, port: u16, patience: Duration) -> Option<ServerVersion> {
    tokio::time::timeout(patience, async {
        let mut stream = TcpStream::connect((host, port)).await.ok()?;
        stream.write_all(b"AMQP\x00\x00\x09\x01").await.ok()?;
        read_version(&mut stream).await
    })
    .await
    .ok()
    .flatten()
}

async fn read_version(stream: &mut (impl AsyncReadExt + Unpin)) -> Option<ServerVersion> {
    let mut head = [0; 7];
    stream.read_exact(&mut head).await.ok()?;
    let [1, 0, 0, a, b, c, d] = head else {
        return None;
    };
    let length = u32::from_be_bytes([a, b, c, d]) as usize;
    if length > MAX_FRAME {
        return None;
    }
    let mut frame = vec![0; length];
    stream.read_exact(&mut frame).await.ok()?;
    version_in(&frame)
}

/// Finds the field `version` in the server's properties: its name as a short string, then a long
/// string.
fn version_in(frame: &[u8]) -> Option<ServerVersion> {
    const FIELD: &[u8] = b"\x07versionS";
    let rest = frame.strip_prefix(&START)?;
    let at = rest
        .windows(FIELD.len())
        .position(|window| window == FIELD)?;
    let value = rest.get(at + FIELD.len()..)?;
    let length = u32::from_be_bytes(value.get(..4)?.try_into().ok()?) as usize;
    let text = std::str::from_utf8(value.get(4..4 + length)?).ok()?;
    let mut parts = text.split('.').map(|part| part.parse().ok());
    Some(ServerVersion {
        major: parts.next()??,
        minor: parts.next()??,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_is_found_among_the_properties() {
        let mut frame = START.to_vec();
        frame.extend_from_slice(b"\x00\x09\x00\x00\x00\x40\x07productS\x00\x00\x00\x08RabbitMQ");
        frame.extend_from_slice(b"\x07versionS\x00\x00\x00\x063.10.8\x08platformS");
        assert_eq!(
            version_in(&frame),
            Some(ServerVersion {
                major: 3,
                minor: 10
            })
        );
        assert_eq!(version_in(b"nonsense"), None);
        assert_eq!(
            version_in(b"\x00\x0a\x00\x0a\x07versionS\x00\xff\xff\xff"),
            None
        );
    }
}

//! The broker's version, asked before the real connection is made.
//!
//! Versions differ in what a queue argument means (`x-delivery-limit = -1` is "none" on 4.0 and
//! later and "at once" on 3.10), and lapin does not expose the server's properties. So a connection
//! of its own, made by lapin's TCP and TLS stack, reads the first frame that the broker sends (AMQP
//! 0-9-1, section 2.2.4: protocol header, then `connection.start`).

use futures::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use lapin::protocol;
use lapin::protocol::AMQPClass;
use lapin::protocol::connection::AMQPMethod;
use lapin::tcp::AMQPUriTcpExt;
use lapin::types::AMQPValue;
use lapin::uri::AMQPUri;
use std::io;
use std::time::Duration;

/// Major and minor version of the broker.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct ServerVersion {
    /// As in 3 of 3.10.8.
    pub major: u32,
    /// As in 10 of 3.10.8.
    pub minor: u32,
}

/// No `connection.start` is anywhere near this long.
const MAX_FRAME: usize = 64 * 1024;

impl ServerVersion {
    /// Whether `x-delivery-limit = -1` switches the broker's own limit off here.
    pub fn delivery_limit_can_be_switched_off(self) -> bool {
        self.major >= 4
    }
}

/// Asks the broker, with TLS where the URI says so.
///
/// # Errors
/// lapin's, and an I/O error when the broker does not answer in time or names no version. A queue must not be declared as if
/// the broker were another one: its arguments stay.
pub async fn ask(uri: &AMQPUri, timeout: Duration) -> lapin::Result<ServerVersion> {
    let asking = async {
        let runtime = lapin::runtime::default_runtime()?;
        let mut stream = uri.connect_async(&runtime).await?;
        stream.write_all(b"AMQP\x00\x00\x09\x01").await?;
        stream.flush().await?;
        Ok(read_version(&mut stream).await?)
    };
    tokio::time::timeout(timeout, asking)
        .await
        .unwrap_or_else(|_| {
            let message = format!("the broker does not answer within {timeout:?}");
            Err(io::Error::new(io::ErrorKind::TimedOut, message).into())
        })
}

async fn read_version(stream: &mut (impl AsyncRead + Unpin)) -> io::Result<ServerVersion> {
    let mut head = [0; 7];
    stream.read_exact(&mut head).await?;
    // A method frame on channel 0, and its length.
    let [1, 0, 0, a, b, c, d] = head else {
        return Err(no_version());
    };
    let length = u32::from_be_bytes([a, b, c, d]) as usize;
    if length > MAX_FRAME {
        return Err(no_version());
    }
    let mut method = vec![0; length];
    stream.read_exact(&mut method).await?;
    version_in(&method).ok_or_else(no_version)
}

fn no_version() -> io::Error {
    io::Error::other("the broker names no version in connection.start")
}

fn version_in(method: &[u8]) -> Option<ServerVersion> {
    let (_, method) = protocol::parse_class(method).ok()?;
    let AMQPClass::Connection(AMQPMethod::Start(start)) = method else {
        return None;
    };
    let properties = start.server_properties.inner();
    let Some(AMQPValue::LongString(version)) = properties.get("version") else {
        return None;
    };
    let version = version.to_string();
    let mut parts = version.split('.').map(|part| part.parse().ok());
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
        let start = |properties: &[u8]| {
            let length = u32::try_from(properties.len()).unwrap().to_be_bytes();
            // Class, method, protocol version, properties, mechanisms, locales.
            let parts: [&[u8]; 6] = [
                &[0, 10, 0, 10],
                &[0, 9],
                &length,
                properties,
                b"\x00\x00\x00\x05PLAIN",
                b"\x00\x00\x00\x05en_US",
            ];
            version_in(&parts.concat())
        };
        let (major, minor) = (3, 10);
        let product = b"\x07productS\x00\x00\x00\x08RabbitMQ";
        let version = b"\x07versionS\x00\x00\x00\x063.10.8";
        let found = start(&[product.as_slice(), version].concat());
        assert_eq!(found, Some(ServerVersion { major, minor }));
        assert_eq!(start(product), None);
        assert_eq!(start(b"\x07versionS\x00\x00\x00\x04four"), None);
        assert_eq!(start(b"\x07versionS\x00\xff\xff\xff"), None);
        assert_eq!(version_in(b"nonsense"), None);
    }
}

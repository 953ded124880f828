//! The way to a server of PostgreSQL: TCP, plain or encrypted, or a socket in the file system.

use super::CaptureError;
use super::frames::Socket;
use crate::store::ErrorKind;
use bytes::BytesMut;
use postgres_protocol::message::frontend;
use socket2::{SockRef, TcpKeepalive};
use std::path::Path;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};
use tokio_postgres::Config;
use tokio_postgres::config::{Host, SslMode};
use tokio_postgres::tls::{MakeTlsConnect, TlsConnect};
use tokio_postgres_rustls::MakeRustlsConnect;

const DEFAULT_PORT: u16 = 5432;

/// Connects to a host of the URL, which is the one at `at`.
pub(super) async fn reach(
    config: &Config,
    connector: Option<&MakeRustlsConnect>,
    host: &Host,
    at: usize,
) -> Result<Box<dyn Socket>, CaptureError> {
    let ports = config.get_ports();
    let port = ports.get(at).or(ports.first()).copied();
    let port = port.unwrap_or(DEFAULT_PORT);
    match host {
        Host::Tcp(name) => {
            let stream = match config.get_hostaddrs().get(at) {
                Some(address) => TcpStream::connect((*address, port)).await,
                None => TcpStream::connect((name.as_str(), port)).await,
            };
            let stream = stream.map_err(unreachable)?;
            keep_alive(&stream, config).map_err(unreachable)?;
            encrypt(stream, config.get_ssl_mode(), connector, name).await
        }
        Host::Unix(folder) => Ok(Box::new(unix(folder, port).await?)),
    }
}

async fn unix(folder: &Path, port: u16) -> Result<UnixStream, CaptureError> {
    let path = folder.join(format!(".s.PGSQL.{port}"));
    UnixStream::connect(path).await.map_err(unreachable)
}

/// A cut of the network shows within half a minute, also while nothing is sent.
fn keep_alive(stream: &TcpStream, config: &Config) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    let mut keep_alive = TcpKeepalive::new().with_time(config.get_keepalives_idle());
    if let Some(interval) = config.get_keepalives_interval() {
        keep_alive = keep_alive.with_interval(interval);
    }
    if let Some(retries) = config.get_keepalives_retries() {
        keep_alive = keep_alive.with_retries(retries);
    }
    let socket = SockRef::from(stream);
    socket.set_tcp_keepalive(&keep_alive)?;
    #[cfg(target_os = "linux")]
    socket.set_tcp_user_timeout(config.get_tcp_user_timeout().copied())?;
    Ok(())
}

/// Asks for encryption, as `sslmode` says.
async fn encrypt(
    mut stream: TcpStream,
    mode: SslMode,
    connector: Option<&MakeRustlsConnect>,
    name: &str,
) -> Result<Box<dyn Socket>, CaptureError> {
    let (Some(connector), true) = (connector, mode != SslMode::Disable) else {
        return Ok(Box::new(stream));
    };
    let mut request = BytesMut::new();
    frontend::ssl_request(&mut request);
    stream.write_all(&request).await.map_err(unreachable)?;
    let offered = stream.read_u8().await.map_err(unreachable)?;
    if offered != b'S' {
        if mode == SslMode::Prefer {
            return Ok(Box::new(stream));
        }
        return Err(CaptureError::new(
            ErrorKind::Operator,
            "the server does not offer TLS, and the URL asks for it by sslmode",
        ));
    }
    let mut connector = connector.clone();
    let refused = |error: &dyn std::fmt::Display| {
        CaptureError::new(ErrorKind::Operator, format!("cannot encrypt: {error}"))
    };
    let handshake = MakeTlsConnect::<TcpStream>::make_tls_connect(&mut connector, name)
        .map_err(|error| refused(&error))?;
    let encrypted = handshake.connect(stream).await;
    Ok(Box::new(encrypted.map_err(|error| refused(&error))?))
}

fn unreachable(error: std::io::Error) -> CaptureError {
    CaptureError::connection("PostgreSQL is not reached", error)
}

//! A way to a server that can be shut: connections through it break, and new ones are refused, as if
//! the server had been stopped. The bench cannot stop a server that is not its own.

use super::thread;
use anyhow::{Context as _, bail};
use std::net::SocketAddr;
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_postgres::Config;
use tokio_postgres::config::{Host, SslMode};

/// The gate, open at first; with it go its connections.
#[derive(Debug)]
pub struct Gate {
    /// Where its near end is.
    pub address: SocketAddr,
    open: watch::Sender<bool>,
}

impl Gate {
    /// A gate before the PostgreSQL of a URL.
    ///
    /// # Errors
    /// When the URL names no host, or a certificate would be checked against the host's name, which
    /// is another here.
    pub async fn before(url: &str) -> anyhow::Result<Self> {
        let Ok(config) = url.parse::<Config>() else {
            bail!("store.url cannot be read");
        };
        if config.get_ssl_mode() == SslMode::Require {
            bail!("a store with sslmode=require cannot be cut off by the bench; stop it by hand");
        }
        let Some(Host::Tcp(host)) = config.get_hosts().first() else {
            bail!("store.url names no host; a socket file cannot be cut off by the bench");
        };
        let port = config.get_ports().first().copied().unwrap_or(5432);
        let server = tokio::net::lookup_host((host.as_str(), port))
            .await?
            .next()
            .with_context(|| format!("{host} has no address"))?;
        let listener = TcpListener::bind("127.0.0.1:0").await?.into_std()?;
        let address = listener.local_addr()?;
        let (open, state) = watch::channel(true);
        // It ends when the sender is dropped.
        drop(thread::run("bench-gate", async move || {
            keep(TcpListener::from_std(listener)?, server, state).await
        })?);
        Ok(Self { address, open })
    }

    /// The URL that leads through it.
    ///
    /// # Errors
    /// When the URL has no host.
    pub fn url(&self, url: &str) -> anyhow::Result<String> {
        let (scheme, rest) = url.split_once("://").context("store.url has no scheme")?;
        let end = rest.find(['/', '?']).unwrap_or(rest.len());
        let (authority, path) = rest.split_at(end);
        let user = authority.rfind('@').map_or(0, |at| at + 1);
        let user = authority.get(..user).unwrap_or_default();
        Ok(format!("{scheme}://{user}{}{path}", self.address))
    }

    /// Opens or shuts it.
    pub fn set_open(&self, open: bool) {
        self.open.send_replace(open);
    }
}

async fn keep(
    listener: TcpListener,
    server: SocketAddr,
    mut open: watch::Receiver<bool>,
) -> anyhow::Result<()> {
    let address = listener.local_addr()?;
    let mut listener = Some(listener);
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            changed = open.changed() => {
                if changed.is_err() {
                    return Ok(());
                }
                if *open.borrow_and_update() {
                    listener = Some(TcpListener::bind(address).await?);
                } else {
                    // Without a listener the system refuses for us.
                    listener = None;
                    connections.shutdown().await;
                }
            }
            taken = accept(listener.as_ref()) => {
                if let Ok((near, _)) = taken {
                    connections.spawn(pass(near, server));
                }
            }
            Some(_) = connections.join_next() => {}
        }
    }
}

async fn accept(listener: Option<&TcpListener>) -> std::io::Result<(TcpStream, SocketAddr)> {
    match listener {
        Some(listener) => listener.accept().await,
        None => std::future::pending().await,
    }
}

async fn pass(mut near: TcpStream, server: SocketAddr) -> std::io::Result<()> {
    let mut far = TcpStream::connect(server).await?;
    near.set_nodelay(true)?;
    far.set_nodelay(true)?;
    copy_bidirectional(&mut near, &mut far).await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    #[tokio::test]
    async fn what_is_shut_breaks_and_refuses_and_opens_again() {
        let server = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = server.local_addr().unwrap().port();
        let url = format!("postgres://me:secret@127.0.0.1:{port}/mine?sslmode=disable");
        let gate = Gate::before(&url).await.unwrap();
        let through = format!("postgres://me:secret@{}/mine?sslmode=disable", gate.address);
        assert_eq!(gate.url(&url).unwrap(), through);

        let talk = async || {
            let mut near = TcpStream::connect(gate.address).await?;
            near.write_all(b"hello").await?;
            let (mut far, _) = server.accept().await?;
            let mut heard = [0; 5];
            far.read_exact(&mut heard).await?;
            assert_eq!(&heard, b"hello");
            std::io::Result::Ok((near, far))
        };
        let (mut near, _far) = talk().await.unwrap();
        gate.set_open(false);
        // Either end of the connection notices.
        let noticed = tokio::time::timeout(Duration::from_secs(10), near.read(&mut [0; 1])).await;
        assert!(matches!(noticed, Ok(Ok(0) | Err(_))), "{noticed:?}");
        assert!(TcpStream::connect(gate.address).await.is_err());
        gate.set_open(true);
        loop {
            if talk().await.is_ok() {
                break;
            }
            tokio::task::yield_now().await;
        }
    }

    #[tokio::test]
    async fn what_cannot_be_cut_off_is_said() {
        for (url, reason) in [
            ("postgres://h/d?sslmode=require", "sslmode"),
            ("postgres:///d?host=/run/postgresql", "socket"),
            ("nonsense", "cannot be read"),
        ] {
            let error = Gate::before(url).await.unwrap_err().to_string();
            assert!(error.contains(reason), "{url}: {error}");
        }
    }
}

//! A TCP proxy whose network can be made bad while it runs.
//!
//! Toxiproxy is a server of its own and its Rust crates are clients of it; no crate has one inside
//! the process. This one is, so a test needs nothing installed and can cut at an exact byte.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::ports::free_listener;

/// Which way bytes go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// From the client to the server.
    Up,
    /// From the server to the client.
    Down,
}

/// When a connection is cut that a pattern passes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Moment {
    /// The other side never sees it.
    Before,
    /// The other side sees it and has answered, and the answer is lost: whoever sent it can't know
    /// whether it was done.
    Answered,
}

/// How a connection ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    /// Closed in order (FIN).
    Closed,
    /// Aborted (RST).
    Reset,
    /// Only those that have lost bytes: no stream goes on behind a hole.
    Holed,
}

struct Trap {
    way: Direction,
    pattern: Vec<u8>,
    moment: Moment,
}

struct Shared {
    target: SocketAddr,
    delay: Mutex<Duration>,
    drops: [AtomicBool; 2],
    refuses: AtomicBool,
    trap: Mutex<Option<Trap>>,
    sprung: AtomicU64,
    open: AtomicUsize,
    ends: watch::Sender<End>,
}

/// Forwards from a port of its own to a server. Everything ends with its drop.
pub struct Proxy {
    port: u16,
    shared: Arc<Shared>,
    listening: JoinHandle<()>,
}

impl Proxy {
    /// In front of a port of this machine, where nobody need listen yet.
    pub async fn to(target: u16) -> Self {
        let listener = free_listener();
        listener
            .set_nonblocking(true)
            .expect("a setting of every socket");
        let listener = TcpListener::from_std(listener).expect("a runtime is there");
        let port = listener
            .local_addr()
            .expect("a listener has an address")
            .port();
        let shared = Arc::new(Shared {
            target: SocketAddr::from(([127, 0, 0, 1], target)),
            delay: Mutex::default(),
            drops: Default::default(),
            refuses: AtomicBool::default(),
            trap: Mutex::default(),
            sprung: AtomicU64::default(),
            open: AtomicUsize::default(),
            ends: watch::Sender::new(End::Closed),
        });
        let listening = tokio::spawn(listen(listener, Arc::clone(&shared)));
        Self {
            port,
            shared,
            listening,
        }
    }

    /// The same URL by way of this proxy.
    pub fn url(&self, url: &str) -> String {
        let port = format!(":{}", self.shared.target.port());
        assert!(url.contains(&port), "{url} does not lead to {port}");
        url.replacen(&port, &format!(":{}", self.port), 1)
    }

    /// Closes every connection, on both sides; gives how many there were.
    pub fn cut(&self) -> usize {
        self.end(End::Closed)
    }

    /// Aborts every connection, on both sides; gives how many there were.
    pub fn reset(&self) -> usize {
        self.end(End::Reset)
    }

    /// Every chunk of bytes waits so long before it is passed on.
    pub fn delay(&self, latency: Duration) {
        *self.shared.delay.lock().unwrap() = latency;
    }

    /// Swallows what goes this way, and nobody is told.
    pub fn drop_silently(&self, way: Direction) {
        self.shared.drops[way as usize].store(true, Ordering::SeqCst);
    }

    /// New connections are reset at once; those that are there stay.
    pub fn refuse(&self) {
        self.shared.refuses.store(true, Ordering::SeqCst);
    }

    /// The connection on which `pattern` passes next, once, is cut.
    pub fn cut_when(&self, way: Direction, pattern: &[u8], moment: Moment) {
        *self.shared.trap.lock().unwrap() = Some(Trap {
            way,
            pattern: pattern.to_vec(),
            moment,
        });
    }

    /// How often a pattern has cut a connection.
    pub fn sprung(&self) -> u64 {
        self.shared.sprung.load(Ordering::SeqCst)
    }

    /// Connections there are now.
    pub fn open(&self) -> usize {
        self.shared.open.load(Ordering::SeqCst)
    }

    /// The network is well again. What lost bytes is reset, as TCP itself would in the end.
    pub fn heal(&self) {
        self.delay(Duration::ZERO);
        self.shared.refuses.store(false, Ordering::SeqCst);
        for drops in &self.shared.drops {
            drops.store(false, Ordering::SeqCst);
        }
        *self.shared.trap.lock().unwrap() = None;
        self.end(End::Holed);
    }

    fn end(&self, end: End) -> usize {
        let open = self.open();
        self.shared.ends.send_replace(end);
        open
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.listening.abort();
        self.end(End::Reset);
    }
}

async fn listen(listener: TcpListener, shared: Arc<Shared>) {
    while let Ok((client, _)) = listener.accept().await {
        if shared.refuses.load(Ordering::SeqCst) {
            let _ = client.set_zero_linger();
        } else {
            tokio::spawn(forward(client, Arc::clone(&shared)));
        }
    }
}

/// What the two directions of one connection tell each other.
#[derive(Default)]
struct Connection {
    /// The answer to what sprang the trap is awaited, and will be lost.
    answer_is_lost: [AtomicBool; 2],
    holed: AtomicBool,
}

async fn forward(mut client: TcpStream, shared: Arc<Shared>) {
    let mut ends = shared.ends.subscribe();
    let Ok(mut server) = TcpStream::connect(shared.target).await else {
        let _ = client.set_zero_linger();
        return;
    };
    let _ = (client.set_nodelay(true), server.set_nodelay(true));
    shared.open.fetch_add(1, Ordering::SeqCst);
    let connection = Connection::default();
    let end = {
        let (from_client, to_client) = client.split();
        let (from_server, to_server) = server.split();
        let up = connection.pass(from_client, to_server, Direction::Up, &shared);
        let down = connection.pass(from_server, to_client, Direction::Down, &shared);
        let both = async {
            tokio::try_join!(up, down)
                .err()
                .map_or(End::Closed, |_| End::Reset)
        };
        tokio::select! {
            end = both => end,
            end = connection.told_to_end(&mut ends) => end,
        }
    };
    shared.open.fetch_sub(1, Ordering::SeqCst);
    if end != End::Closed {
        let _ = (client.set_zero_linger(), server.set_zero_linger());
    }
}

impl Connection {
    async fn told_to_end(&self, ends: &mut watch::Receiver<End>) -> End {
        while ends.changed().await.is_ok() {
            let end = *ends.borrow_and_update();
            if end != End::Holed || self.holed.load(Ordering::SeqCst) {
                return end;
            }
        }
        End::Reset
    }

    /// Passes bytes on until their end, or an error, which ends both directions.
    async fn pass(
        &self,
        mut from: impl AsyncRead + Unpin,
        mut to: impl AsyncWrite + Unpin,
        way: Direction,
        shared: &Shared,
    ) -> std::io::Result<()> {
        let mut buffer = vec![0; 64 * 1024];
        // The end of what has passed, in which a pattern may have begun.
        let mut passed = Vec::new();
        loop {
            let count = from.read(&mut buffer).await?;
            if count == 0 {
                return to.shutdown().await;
            }
            let bytes = &buffer[..count];
            let delay = *shared.delay.lock().unwrap();
            if !delay.is_zero() {
                tokio::time::sleep(delay).await;
            }
            if self.answer_is_lost[way as usize].load(Ordering::SeqCst) {
                shared.sprung.fetch_add(1, Ordering::SeqCst);
                return Err(std::io::ErrorKind::ConnectionReset.into());
            }
            if shared.drops[way as usize].load(Ordering::SeqCst) {
                self.holed.store(true, Ordering::SeqCst);
                continue;
            }
            passed.extend_from_slice(bytes);
            match spring(shared, way, &mut passed) {
                Some(Moment::Before) => {
                    shared.sprung.fetch_add(1, Ordering::SeqCst);
                    return Err(std::io::ErrorKind::ConnectionReset.into());
                }
                Some(Moment::Answered) => {
                    let back = 1 - way as usize;
                    self.answer_is_lost[back].store(true, Ordering::SeqCst);
                }
                None => {}
            }
            to.write_all(bytes).await?;
        }
    }
}

/// Takes the trap if its pattern has passed, and keeps of `passed` only what a pattern still to
/// come may have begun in.
fn spring(shared: &Shared, way: Direction, passed: &mut Vec<u8>) -> Option<Moment> {
    let mut trap = shared.trap.lock().unwrap();
    let Some(armed) = trap.as_ref().filter(|trap| trap.way == way) else {
        passed.clear();
        return None;
    };
    let length = armed.pattern.len();
    if passed.windows(length).any(|part| part == armed.pattern) {
        return trap.take().map(|trap| trap.moment);
    }
    passed.drain(..passed.len().saturating_sub(length - 1));
    None
}

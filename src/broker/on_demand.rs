//! A connection that is made when a message needs it, and again after it fails.

use super::connection::in_time;
use lapin::options::ConfirmSelectOptions;
use lapin::uri::AMQPUri;
use lapin::{Channel, Connection, ConnectionProperties};
use parking_lot::Mutex;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// A connection to one server. It belongs to the tokio runtime on which it was made, and ends with it.
pub struct OnDemandConnection {
    uri: AMQPUri,
    /// As the server shows it.
    name: &'static str,
    /// Locked while a connection is made, so that those who need it at once share it.
    current: tokio::sync::Mutex<Option<Arc<OpenConnection>>>,
}

impl OnDemandConnection {
    /// Nothing is connected yet.
    pub fn new(uri: AMQPUri, name: &'static str) -> Self {
        Self {
            uri,
            name,
            current: tokio::sync::Mutex::new(None),
        }
    }

    /// The server as errors name it.
    pub fn server(&self) -> String {
        let authority = &self.uri.authority;
        format!("the broker {}:{}", authority.host, authority.port)
    }

    /// The connection, made anew if there is none of use.
    ///
    /// # Errors
    /// lapin's, and an I/O error when the server does not answer in time.
    pub async fn open(&self) -> lapin::Result<Arc<OpenConnection>> {
        let mut current = self.current.lock().await;
        if let Some(open) = current.as_ref().filter(|open| open.is_usable()) {
            return Ok(Arc::clone(open));
        }
        *current = None;
        let properties = ConnectionProperties::default().with_connection_name(self.name.into());
        let connecting = Connection::connect_uri(self.uri.clone(), properties);
        let open = Arc::new(OpenConnection {
            connection: in_time(connecting).await?,
            idle: Mutex::default(),
            suspect: AtomicBool::new(false),
        });
        *current = Some(Arc::clone(&open));
        Ok(open)
    }
}

/// A connection with its idle channels, which are in confirm mode.
pub struct OpenConnection {
    pub connection: Connection,
    idle: Mutex<Vec<Channel>>,
    /// A message got no answer in time: whatever its state says, the connection may be dead.
    suspect: AtomicBool,
}

impl OpenConnection {
    /// Whether a message may be sent over it.
    pub fn is_usable(&self) -> bool {
        self.connection.status().connected() && !self.suspect.load(Ordering::Acquire)
    }

    /// Whether the server takes no messages for now, and says so.
    pub fn is_blocked(&self) -> bool {
        self.connection.status().blocked()
    }

    /// Has the next message make a new connection.
    pub fn suspect(&self) {
        self.suspect.store(true, Ordering::Release);
    }

    /// An idle channel, or a new one.
    ///
    /// # Errors
    /// lapin's.
    pub async fn channel(&self) -> lapin::Result<Channel> {
        let idle = self.idle.lock().pop();
        if let Some(channel) = idle.filter(|channel| channel.status().connected()) {
            return Ok(channel);
        }
        let channel = self.connection.create_channel().await?;
        let options = ConfirmSelectOptions::default();
        channel.confirm_select(options).await?;
        Ok(channel)
    }

    /// Takes back a channel on which every message has its answer.
    pub fn put_back(&self, channel: Channel) {
        self.idle.lock().push(channel);
    }
}

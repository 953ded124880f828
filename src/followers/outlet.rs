//! What an application implements to send the log elsewhere.

use super::registry::Subscription;
use crate::store::commit_log::LoggedEvent;
use async_trait::async_trait;

/// Why events could not be sent.
#[derive(Debug, Clone, thiserror::Error)]
pub enum SendError {
    /// The receiver cannot take them now. They are sent again, without end.
    #[error("{0}")]
    Unavailable(String),
    /// Only an operator can end what is in the way. They are sent again, without end.
    #[error("{0}")]
    Operator(String),
    /// The receiver refuses an event.
    #[error("{0}")]
    Refused(String),
    /// The receiver has confirmed the first `sent` events, and it is the one behind them that failed.
    #[error("{error}")]
    At { sent: usize, error: Box<SendError> },
}

/// A follower whose effect lies outside the database. Each event is sent at least once: again after a
/// crash between the receiver's confirmation and the new position. Its id tells repeats.
#[async_trait]
pub trait Outlet: Send + Sync + 'static {
    /// Its name, under which the store keeps its position; unique, and for good.
    fn name(&self) -> &str;

    /// Which events it sends, and where it begins.
    fn subscription(&self) -> Subscription;

    /// Sends events in the order of the log, and returns when the receiver has confirmed all of them.
    ///
    /// # Errors
    /// Why not. A refusal makes the chunk smaller, until one event stands alone; [`SendError::At`] says at
    /// once which one it is, and has the position stored up to it.
    async fn send(&self, events: &[LoggedEvent]) -> Result<(), SendError>;
}

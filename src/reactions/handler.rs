//! What handles an event: an application's own code, or a handler of the service.

use super::completion::Completion;
use crate::event::StoredEvent;
use async_trait::async_trait;
use std::sync::Arc;
use std::time::Duration;

/// A reaction to one event: what a handler is called with, once for each attempt.
#[derive(Debug, Clone)]
pub struct Run {
    /// Name of the reaction: at most 60 letters, digits, dots, dashes and underscores of ASCII.
    pub reaction: Arc<str>,
    /// 1 for the first attempt.
    pub attempt: u32,
    pub event: Arc<StoredEvent>,
    pub(super) completion: Option<Completion>,
}

impl Run {
    /// A run that no store knows of, for tests of a handler.
    pub fn new(reaction: &str, attempt: u32, event: StoredEvent) -> Self {
        Self {
            reaction: Arc::from(reaction),
            attempt,
            event: Arc::new(event),
            completion: None,
        }
    }

    /// The event's id, a dot and the reaction's name: the same for each attempt.
    pub fn id(&self) -> String {
        format!("{}.{}", self.event.event_id, self.reaction)
    }
}

/// Why an attempt did not succeed, and what follows.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HandlerError {
    /// The run is tried again after a back-off, until its attempts are spent; then it has failed.
    #[error("{0}")]
    Failed(String),
    /// The same, but not before this time has passed.
    #[error("{reason}")]
    RetryAfter { reason: String, after: Duration },
    /// The run is tried again after this time, and spends no attempt.
    #[error("postponed by {}", humantime::format_duration(*.0))]
    Snooze(Duration),
    /// The run has failed; it is not tried again.
    #[error("{0}")]
    Discard(String),
    /// The run is cancelled.
    #[error("{0}")]
    Cancel(String),
}

/// Handles events.
///
/// A run is handled at least once: again after a crash between the handler's effect and the stored
/// outcome. [`Run::id`] tells repeats. An asynchronous function of a [`Run`] is a handler.
#[async_trait]
pub trait Handler: Send + Sync + 'static {
    /// Handles one event.
    ///
    /// # Errors
    /// Why not, and what is to follow.
    async fn handle(&self, run: &Run) -> Result<(), HandlerError>;
}

#[async_trait]
impl<F, R> Handler for F
where
    F: Fn(Run) -> R + Send + Sync + 'static,
    R: Future<Output = Result<(), HandlerError>> + Send,
{
    async fn handle(&self, run: &Run) -> Result<(), HandlerError> {
        self(run.clone()).await
    }
}

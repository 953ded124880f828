//! Declares the registered followers and starts their actors.

use super::log_end::{CommitSignal, LogWatch};
use super::registry::{Followers, InvalidFollower};
use super::roster::{Roster, RosterParams};
use super::sequencer::{Sequencer, SequencerParams};
use crate::store::{ErrorKind, Store, StoreError};
use crate::supervision::{Backoff, Mailbox, Starter};
use actix_rt::Arbiter;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Semaphore;

/// First and longest pause after a declaration that failed because the store is away.
const AGAIN: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(5));

/// How followers run.
#[derive(Debug, Clone, Copy)]
pub struct FollowerOptions {
    /// Lifetime of a lease that is not renewed: how long a follower of a dead process stands still.
    pub lease_ttl: Duration,
    /// Followers that may hold a chunk at a time.
    pub connections: usize,
}

impl Default for FollowerOptions {
    fn default() -> Self {
        Self {
            lease_ttl: Duration::from_secs(15),
            connections: 4,
        }
    }
}

/// Why followers cannot be started.
#[derive(Debug, thiserror::Error)]
pub enum NotStarted {
    #[error(transparent)]
    Invalid(#[from] InvalidFollower),
    #[error("a follower cannot be declared: {0}")]
    Store(#[from] StoreError),
}

/// The followers of a process at work, until dropped.
#[derive(Clone)]
pub struct RunningFollowers {
    /// The end of the log.
    pub watch: LogWatch,
    /// To be raised after each commit of this process; without it the log is looked at five times a
    /// second.
    pub commits: CommitSignal,
    // Kept because an actor without an address is not restarted.
    _sequencer: Mailbox<Sequencer>,
    _roster: Mailbox<Roster>,
}

impl Followers {
    /// Declares the followers and starts them, on a thread of their own; the numbering and the leases have
    /// another one, so that a follower that computes for long does not hold them up. Call it on actix's
    /// runtime.
    ///
    /// # Errors
    /// A follower is invalid, or the store refuses a declaration. A store that is away is waited for.
    pub async fn start(
        self,
        store: Arc<dyn Store>,
        options: FollowerOptions,
        starter: &Starter,
    ) -> Result<RunningFollowers, NotStarted> {
        self.check()?;
        for work in &self.all {
            let Some(declaration) = work.declaration() else {
                continue;
            };
            let declare = async || store.declare(&declaration).await;
            if while_away(&declaration.name, "follower not declared yet", declare).await? {
                tracing::info!(
                    follower = declaration.name,
                    types = ?declaration.types.to_vec(),
                    "follower declared"
                );
            }
        }
        let arbiters = (Arbiter::new(), Arbiter::new());
        let (watch, commits) = (LogWatch::default(), CommitSignal::default());
        let (sequencer, inbox) = starter.mailbox("sequencer", 0, 1);
        let params = SequencerParams {
            log: store.clone(),
            reactions: store.clone(),
            commits: commits.clone(),
            watch: watch.clone(),
            lifecycle: starter.lifecycle.clone(),
            metrics: Arc::clone(&starter.metrics),
        };
        starter.start(&arbiters.0, inbox, Sequencer::new(params));
        let params = RosterParams {
            sources: self.sources,
            starter: starter.clone(),
            arbiters,
            turns: Arc::new(Semaphore::new(options.connections.max(1))),
            lease_ttl: options.lease_ttl,
            store,
            watch: watch.clone(),
        };
        let roster = Roster::start(params, self.all);
        Ok(RunningFollowers {
            watch,
            commits,
            _sequencer: sequencer,
            _roster: roster,
        })
    }
}

/// Asks the store, again and again while it is away: it may start together with this process.
pub(crate) async fn while_away<T>(
    name: &str,
    what: &str,
    ask: impl AsyncFn() -> Result<T, StoreError>,
) -> Result<T, StoreError> {
    let mut backoff = Backoff::new(AGAIN.0, AGAIN.1);
    loop {
        match ask().await {
            Err(error) if matches!(error.kind(), ErrorKind::Outage | ErrorKind::Transient) => {
                let pause = backoff.next_pause();
                tracing::warn!(
                    name,
                    kind = error.kind().as_str(),
                    %error,
                    again_in_ms = pause.as_millis() as u64,
                    "{what}"
                );
                tokio::time::sleep(pause).await;
            }
            done => return done,
        }
    }
}

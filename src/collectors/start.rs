//! The streams of a process: their declaration, and the actors that serve them.

use super::feed::Feed;
use super::polls::{Declared, Polls};
use super::stream::Stream;
use super::token::Tokens;
use super::waiters::Waiters;
use super::watch::{StreamWatch, StreamWatchParams};
use crate::config::{Mode, Settings};
use crate::event::budget::Budget;
use crate::followers::{Followers, LogWatch, while_away};
use crate::store::{Store, StoreError};
use crate::supervision::{Mailbox, Starter};
use actix_rt::Arbiter;
use std::collections::BTreeMap;
use std::sync::Arc;

/// The declared streams of a process.
pub struct Collectors {
    streams: BTreeMap<String, Declared>,
    tokens: Tokens,
}

/// The actors, until dropped.
#[derive(Clone)]
pub struct CollectorActors {
    // Kept because an actor without an address is not restarted.
    _watch: Option<Mailbox<StreamWatch>>,
}

impl Collectors {
    /// Declares streams, and adds their followers to those of the process.
    ///
    /// # Errors
    /// The store refuses a stream. A store that is away is waited for.
    pub async fn declare(
        declared: Vec<Stream>,
        store: &Arc<dyn Store>,
        mut followers: Followers,
    ) -> Result<(Self, Followers), StoreError> {
        let secret = async || store.stream_secret().await;
        let secret = while_away("streams", "the key of tokens cannot be read yet", secret).await?;
        let mut streams = BTreeMap::new();
        for stream in declared {
            let declare = async || store.declare_stream(&stream.name).await;
            let id = while_away(&stream.name, "stream not declared yet", declare).await?;
            let stream = Arc::new(stream);
            followers = followers.project(Feed::new(id, Arc::clone(&stream)));
            streams.insert(stream.name.clone(), Declared { id, stream });
        }
        let tokens = Tokens::new(secret);
        Ok((Self { streams, tokens }, followers))
    }

    /// Starts the actors on a thread of their own.
    pub fn start(
        self,
        settings: &Settings,
        store: &Arc<dyn Store>,
        log: &LogWatch,
        starter: &Starter,
    ) -> (Polls, CollectorActors) {
        let polls = Polls {
            store: Arc::clone(store),
            streams: Arc::new(self.streams),
            tokens: self.tokens,
            waiters: Waiters::default(),
            answers: Budget::new(settings.ingest.bytes_in_flight()),
            lifecycle: starter.lifecycle.clone(),
            metrics: Arc::clone(&starter.metrics),
        };
        let watch = (!polls.streams.is_empty()).then(|| {
            let arbiter = Arbiter::new();
            let (watch, inbox) = starter.mailbox("stream_watch", 0, 1);
            let params = StreamWatchParams {
                polls: polls.clone(),
                is_shared: settings.mode() != Mode::Embedded,
                log: log.clone(),
            };
            starter.start(&arbiter, inbox, StreamWatch::new(params));
            watch
        });
        (polls, CollectorActors { _watch: watch })
    }
}

//! Calls of collectors, with the wait for messages in between.

use super::stream::Stream;
use super::token::Tokens;
use super::waiters::Waiters;
use crate::event::Cause;
use crate::event::budget::{Budget, Permit};
use crate::metrics::Metrics;
use crate::store::streams::{Call, Delivered, Place, Reply, StreamRules, Ticket, Which};
use crate::store::{Store, StoreError};
use crate::supervision::{Lifecycle, Phase};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Bytes of an answer for a message besides its body, at most about.
const AROUND: usize = 128;

/// A stream that is declared, with its number.
#[derive(Debug, Clone)]
pub struct Declared {
    pub id: i32,
    pub stream: Arc<Stream>,
}

/// The answer to a collector.
#[derive(Debug)]
pub enum Polled {
    /// Messages, and the token that acknowledges them and asks for the next ones.
    Messages {
        next: String,
        messages: Vec<Delivered>,
        /// Room for them in memory, to be held until they are sent.
        permit: Permit,
    },
    /// There are messages, and too many bytes are under way to other collectors.
    Busy,
    /// There were none in time; the token asks again.
    Nothing { next: String },
    /// All slots of the key are taken, at least for this time.
    Full { after: Duration },
    /// A later call with the same token has taken the poll over, or the session has ended.
    Gone,
    /// The token is none of this key.
    Unknown,
    /// Done: how many messages were acknowledged, and how many returned.
    Done { acknowledged: u32, returned: u32 },
}

/// Whether a collector is gone.
pub type IsGone<'a> = &'a (dyn Fn() -> bool + 'a);

/// Answers collectors; clones share what they are wired to.
#[derive(Clone)]
pub struct Polls {
    pub(super) store: Arc<dyn Store>,
    pub(super) streams: Arc<BTreeMap<String, Declared>>,
    pub(super) tokens: Tokens,
    pub(super) waiters: Waiters,
    /// The bound on the bytes of all answers under way.
    pub(super) answers: Budget,
    pub(super) lifecycle: Lifecycle,
    pub(super) metrics: Arc<Metrics>,
}

impl Polls {
    /// The declared stream of this name.
    pub fn stream(&self, name: &str) -> Option<&Declared> {
        self.streams.get(name)
    }

    /// All streams that this process declares, by name.
    pub fn streams(&self) -> impl Iterator<Item = &Declared> {
        self.streams.values()
    }

    /// Opens a session of a key and asks for at most `limit` messages.
    ///
    /// # Errors
    /// The store's.
    pub async fn start(
        &self,
        declared: &Declared,
        key: &str,
        limit: usize,
        is_gone: IsGone<'_>,
    ) -> Result<Polled, StoreError> {
        self.poll(declared, key, Call::Start { limit }, limit, is_gone)
            .await
    }

    /// Asks for the answer that a token stands for, which acknowledges the one before.
    ///
    /// # Errors
    /// The store's.
    pub async fn next(
        &self,
        declared: &Declared,
        key: &str,
        token: &str,
        limit: usize,
        is_gone: IsGone<'_>,
    ) -> Result<Polled, StoreError> {
        let Some(ticket) = self.tokens.read(&place(declared, key), token) else {
            return Ok(Polled::Unknown);
        };
        let waiting = None;
        let call = Call::Next {
            ticket,
            limit,
            waiting,
        };
        self.poll(declared, key, call, limit, is_gone).await
    }

    /// Acknowledges the last answer and ends the session.
    ///
    /// # Errors
    /// The store's.
    pub async fn end(
        &self,
        declared: &Declared,
        key: &str,
        token: &str,
    ) -> Result<Polled, StoreError> {
        self.with_ticket(declared, key, token, |ticket| Call::End { ticket })
            .await
    }

    /// Returns messages of the last answer, to be handed out again after `delay`.
    ///
    /// # Errors
    /// The store's.
    pub async fn refuse(
        &self,
        declared: &Declared,
        key: &str,
        token: &str,
        which: Which,
        delay: Duration,
    ) -> Result<Polled, StoreError> {
        let call = |ticket| Call::Refuse {
            ticket,
            which,
            delay,
        };
        self.with_ticket(declared, key, token, call).await
    }

    /// Has the session live for so long from now on.
    ///
    /// # Errors
    /// The store's.
    pub async fn extend(
        &self,
        declared: &Declared,
        key: &str,
        token: &str,
        lease: Duration,
    ) -> Result<Polled, StoreError> {
        self.with_ticket(declared, key, token, |ticket| Call::Extend {
            ticket,
            lease,
        })
        .await
    }

    /// Ends all sessions of a key, or one. What they have not acknowledged is handed out again.
    ///
    /// # Errors
    /// The store's.
    pub async fn release(
        &self,
        declared: &Declared,
        key: &str,
        session: Option<i64>,
    ) -> Result<Polled, StoreError> {
        let place = place(declared, key);
        let reply = self
            .change(declared, &place, &Call::Release { session })
            .await?;
        Ok(self.polled(&place, reply))
    }

    async fn with_ticket(
        &self,
        declared: &Declared,
        key: &str,
        token: &str,
        call: impl FnOnce(Ticket) -> Call,
    ) -> Result<Polled, StoreError> {
        let place = place(declared, key);
        let Some(ticket) = self.tokens.read(&place, token) else {
            return Ok(Polled::Unknown);
        };
        let reply = self.change(declared, &place, &call(ticket)).await?;
        Ok(self.polled(&place, reply))
    }

    /// Does what may have messages return, and has the calls of this process that wait ask for them.
    pub(super) async fn change(
        &self,
        declared: &Declared,
        place: &Place,
        call: &Call,
    ) -> Result<Reply, StoreError> {
        let rules = &declared.stream.rules;
        let reply = self.call(declared, place, call, rules).await?;
        self.count(&declared.stream.name, &reply);
        self.waiters.wake(place);
        Ok(reply)
    }

    async fn call(
        &self,
        declared: &Declared,
        place: &Place,
        call: &Call,
        rules: &StreamRules,
    ) -> Result<Reply, StoreError> {
        let called = self.store.call(place, call, rules).await?;
        if called.undeliverable > 0 {
            let (stream, messages) = (&declared.stream.name, called.undeliverable);
            tracing::warn!(
                stream,
                messages,
                "messages became dead letters: collectors got them too often"
            );
            let labels = [Cause::Undeliverable.as_str()];
            let counted = self.metrics.dead_lettered.with_label_values(&labels);
            counted.inc_by(u64::from(messages));
        }
        Ok(called.reply)
    }

    /// Calls until there are messages or the time is over.
    async fn poll(
        &self,
        declared: &Declared,
        key: &str,
        mut call: Call,
        limit: usize,
        is_gone: IsGone<'_>,
    ) -> Result<Polled, StoreError> {
        let place = place(declared, key);
        let rules = &declared.stream.rules;
        let until = Instant::now() + rules.wait;
        let session = match &call {
            Call::Next { ticket, .. } => Some(ticket.session),
            _ => None,
        };
        // No call can go on with a session whose token its collector does not get.
        let is_lost = || session.is_none() && is_gone();
        let mut waiter = self.waiters.join(&place, session);
        // What the collector is to ask with if it gets no messages.
        let mut held: Option<Ticket> = None;
        loop {
            // From before the call on, so that no message is missed in between.
            let woken = waiter.woken();
            let left = until.saturating_duration_since(Instant::now());
            let rules = StreamRules {
                wait: left,
                ..rules.clone()
            };
            let called = self.call(declared, &place, &call, &rules).await;
            let reply = match (called, held) {
                (Err(error), Some(next)) if left.is_zero() => {
                    // There was nothing so far, and the next call shows what holds then.
                    tracing::debug!(%error, "a wait ends without a last look");
                    return Ok(self.nothing(&place, next));
                }
                (called, _) => called?,
            };
            if held.is_none() && matches!(reply, Reply::Messages { .. } | Reply::Waiting { .. }) {
                waiter.wake_session();
            }
            if let Reply::Messages {
                next,
                row: Some(row),
                ..
            } = &reply
                && is_gone()
            {
                self.give_back(declared, &place, *next, *row).await?;
                if session.is_none() {
                    self.abandon(declared, &place, *next).await?;
                }
                return Ok(Polled::Gone);
            }
            self.count(&declared.stream.name, &reply);
            let Reply::Waiting {
                next,
                poll,
                acknowledged,
                more,
            } = reply
            else {
                let answered = match &reply {
                    Reply::Messages { next, row, .. } => row.map(|row| (*next, row)),
                    _ => None,
                };
                let polled = self.polled(&place, reply);
                // With a token the collector asks again, and gets the same messages. Without one it begins again.
                if let (Polled::Busy, None, Some((next, row))) = (&polled, session, answered) {
                    self.give_back(declared, &place, next, row).await?;
                    self.abandon(declared, &place, next).await?;
                }
                return Ok(polled);
            };
            held = Some(next);
            waiter.is_poll(poll);
            call = Call::Next {
                ticket: next,
                limit,
                waiting: Some(poll),
            };
            if more || acknowledged > 0 && declared.stream.rules.ordered {
                // There are others, or what waited behind the acknowledged ones can be had now.
                continue;
            }
            if !left.is_zero() {
                tokio::select! {
                    biased;
                    () = woken => if !is_gone() { continue },
                    () = self.lifecycle.reached(Phase::Draining) => {}
                    () = tokio::time::sleep_until(until.into()) => {}
                }
            }
            if is_lost() {
                self.abandon(declared, &place, next).await?;
            }
            return Ok(self.nothing(&place, next));
        }
    }

    fn nothing(&self, place: &Place, next: Ticket) -> Polled {
        Polled::Nothing {
            next: self.tokens.write(place, next),
        }
    }

    /// Returns the messages of an answer that its collector does not get.
    async fn give_back(
        &self,
        declared: &Declared,
        place: &Place,
        next: Ticket,
        row: i64,
    ) -> Result<(), StoreError> {
        let n = next.n.saturating_sub(1);
        let call = Call::GiveBack {
            ticket: Ticket { n, ..next },
            row: Some(row),
        };
        self.change(declared, place, &call).await?;
        Ok(())
    }

    /// Ends a session that its collector knows nothing of, so that its slot is free.
    async fn abandon(
        &self,
        declared: &Declared,
        place: &Place,
        next: Ticket,
    ) -> Result<(), StoreError> {
        let session = Some(next.session);
        self.change(declared, place, &Call::Release { session })
            .await?;
        Ok(())
    }

    fn polled(&self, place: &Place, reply: Reply) -> Polled {
        match reply {
            Reply::Messages { next, messages, .. } => match self.room(&messages) {
                Some(permit) => Polled::Messages {
                    next: self.tokens.write(place, next),
                    messages,
                    permit,
                },
                None => Polled::Busy,
            },
            Reply::Waiting { next, .. } => self.nothing(place, next),
            Reply::Full { after } => Polled::Full { after },
            Reply::TakenOver | Reply::Gone => Polled::Gone,
            Reply::Unknown => Polled::Unknown,
            Reply::Done {
                acknowledged,
                returned,
            } => Polled::Done {
                acknowledged,
                returned,
            },
        }
    }

    /// Room for an answer's messages in memory.
    fn room(&self, messages: &[Delivered]) -> Option<Permit> {
        let bytes = messages.iter().map(|one| one.body.len() + AROUND).sum();
        self.answers.try_take_alone(bytes)
    }

    fn count(&self, stream: &str, reply: &Reply) {
        let (acknowledged, messages) = match reply {
            Reply::Messages {
                messages,
                acknowledged,
                ..
            } => (*acknowledged, messages.as_slice()),
            Reply::Waiting { acknowledged, .. } | Reply::Done { acknowledged, .. } => {
                (*acknowledged, [].as_slice())
            }
            _ => return,
        };
        let name = [stream];
        let metrics = &self.metrics;
        let counted = metrics.stream_acknowledged.with_label_values(&name);
        counted.inc_by(u64::from(acknowledged));
        let again = messages.iter().filter(|one| one.deliveries > 1).count();
        metrics
            .stream_delivered
            .with_label_values(&name)
            .inc_by(messages.len() as u64);
        metrics
            .stream_redelivered
            .with_label_values(&name)
            .inc_by(again as u64);
    }
}

pub(super) fn place(declared: &Declared, key: &str) -> Place {
    Place {
        stream: declared.id,
        key: key.to_owned(),
    }
}

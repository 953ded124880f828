//! Publishing on one channel, many messages at a time and in order.

use super::message::{MessageForm, OutletMessage};
use super::progress::{Progress, Published};
use crate::broker::on_demand::OpenConnection;
use crate::event::schemas::Schemas;
use crate::followers::SendError;
use crate::store::commit_log::LoggedEvent;
use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use futures::{FutureExt, StreamExt, poll};
use lapin::options::BasicPublishOptions;
use lapin::{Channel, Confirmation};
use std::collections::HashSet;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

/// Most routing keys that are remembered.
const MAX_PROVEN: usize = 10_000;

/// The index of a message, and the answer to it.
type Answer = (usize, lapin::Result<Confirmation>);

/// A channel in confirm mode, of one outlet. One on which something has failed is not used again: its
/// answers may be those to earlier messages.
pub(super) struct OutletChannel {
    over: Arc<OpenConnection>,
    channel: Channel,
    /// Routing keys with which a message on this channel has reached a queue. The first one with another
    /// key goes alone: if no queue gets it, nothing has gone out behind it.
    proven: HashSet<String>,
}

/// What is to be published, and how.
pub(super) struct Publishable<'a> {
    /// In the order of the log.
    pub(super) events: &'a [LoggedEvent],
    pub(super) form: &'a MessageForm,
    pub(super) schemas: Schemas,
    pub(super) generation: i64,
    /// Most messages that are sent and not confirmed.
    pub(super) window: usize,
    /// How long the server may take for the next confirm.
    pub(super) timeout: Duration,
    /// As errors name it.
    pub(super) server: &'a str,
}

impl OutletChannel {
    pub(super) fn new(over: Arc<OpenConnection>, channel: Channel) -> Self {
        Self {
            over,
            channel,
            proven: HashSet::new(),
        }
    }

    pub(super) fn is_usable(&self) -> bool {
        self.over.is_usable() && self.channel.status().connected()
    }

    /// Publishes events in their order. Behind one that fails no further one is sent, and the answers to
    /// those under way are awaited.
    ///
    /// While the server says that it takes no messages, it is waited for: messages that were written to the
    /// connection before are taken when that is over, so another connection would only repeat them.
    pub(super) async fn publish(&mut self, what: &Publishable<'_>) -> Published {
        let mut progress = Progress::default();
        let mut unconfirmed = FuturesUnordered::new();
        let mut held_back = None;
        let mut trial = None;
        loop {
            while unconfirmed.len() < what.window && trial.is_none() && !progress.has_failed() {
                let Some(logged) = what.events.get(progress.sent()) else {
                    break;
                };
                let made = match held_back.take() {
                    Some(message) => Ok(message),
                    None => what.form.message(logged, what.generation, &what.schemas),
                };
                let message = match made {
                    Ok(message) => message,
                    Err(reason) => {
                        progress.cannot_send(SendError::Refused(reason));
                        break;
                    }
                };
                if !self.proven.contains(message.routing_key.as_str()) {
                    if !unconfirmed.is_empty() {
                        held_back = Some(message);
                        break;
                    }
                    trial = Some(message.routing_key.to_string());
                }
                let answer = self.send(progress.sent(), message).await;
                unconfirmed.push(answer);
                progress.send();
            }
            match tokio::time::timeout(what.timeout, unconfirmed.next()).await {
                Ok(Some((index, answer))) => take(&mut progress, what, index, answer),
                Ok(None) => break,
                Err(_) if self.over.is_blocked() => {}
                Err(_) => {
                    self.over.suspect();
                    let limit = humantime::format_duration(what.timeout);
                    let server = what.server;
                    let reason = format!("{server} has confirmed nothing within {limit}");
                    progress.give_up(SendError::Unavailable(reason));
                    break;
                }
            }
            if unconfirmed.is_empty()
                && let Some(key) = trial.take()
                && !progress.has_failed()
            {
                if self.proven.len() >= MAX_PROVEN {
                    self.proven.clear();
                }
                self.proven.insert(key);
            }
        }
        progress.end()
    }

    /// Puts a message on the channel, behind those that were sent before, and gives the answer to come.
    async fn send(&self, index: usize, message: OutletMessage) -> BoxFuture<'static, Answer> {
        let channel = self.channel.clone();
        let mut answer = async move {
            let options = BasicPublishOptions {
                mandatory: true,
                ..BasicPublishOptions::default()
            };
            let OutletMessage {
                exchange,
                routing_key,
                body,
                properties,
            } = message;
            let sent = channel.basic_publish(exchange, routing_key, options, &body, properties);
            let answer = match sent.await {
                Ok(confirm) => confirm.await,
                Err(error) => Err(error),
            };
            (index, answer)
        }
        .boxed();
        // lapin queues the message when it is polled first, which is here, and not in whatever order the
        // answers are polled.
        match poll!(&mut answer) {
            Poll::Ready(answered) => std::future::ready(answered).boxed(),
            Poll::Pending => answer,
        }
    }
}

/// Takes an answer, which may bring back another message than its own: lapin gives one that no queue gets to
/// the next confirm on its channel. The server sends it back before it confirms it, so it has come when all
/// up to it are confirmed.
fn take(
    progress: &mut Progress,
    what: &Publishable<'_>,
    index: usize,
    answer: lapin::Result<Confirmation>,
) {
    progress.answered(index, &answer, what.server);
    let Some(returned) = answer.ok().and_then(Confirmation::take_message) else {
        return;
    };
    let target = what.form.target(returned.routing_key.as_str());
    let id = returned.properties.message_id().as_ref();
    let is_it = |logged: &LoggedEvent| {
        id.is_some_and(|id| *id.as_str() == *logged.event.event_id.to_string())
    };
    // Where it is not found, nothing is taken for confirmed.
    let index = what.events.iter().position(is_it).unwrap_or(0);
    let reason = format!("no queue gets messages of {target} at {}", what.server);
    progress.returned(index, SendError::Operator(reason));
}

//! `RabbitOutlet`: sends the events of one outlet to RabbitMQ.

use super::message::MessageForm;
use super::outlet_channel::{OutletChannel, Publishable};
use super::progress::{Failure, Published, opening_error};
use crate::broker::on_demand::{OnDemandConnection, OpenConnection};
use crate::broker::stream_queue::StreamQueue;
use crate::config::LiveSettings;
use crate::followers::{Outlet, SendError, Subscription};
use crate::store::Store;
use crate::store::commit_log::LoggedEvent;
use async_trait::async_trait;
use parking_lot::Mutex;
use std::sync::Arc;
use std::time::Duration;

/// An outlet of the settings.
pub(super) struct RabbitOutlet {
    /// That of its follower.
    pub(super) name: String,
    pub(super) subscription: Subscription,
    pub(super) form: MessageForm,
    /// Knows the schemas in effect.
    pub(super) settings: LiveSettings,
    /// Declared with each new channel.
    pub(super) stream: Option<StreamQueue>,
    /// Most messages that are sent and not confirmed.
    pub(super) window: usize,
    /// How long the server may take for a confirm.
    pub(super) confirm_timeout: Duration,
    pub(super) connection: Arc<OnDemandConnection>,
    /// Knows the generation of positions.
    pub(super) log: Arc<dyn Store>,
    /// The channel in use, while nothing is sent.
    pub(super) channel: Mutex<Option<OutletChannel>>,
}

impl RabbitOutlet {
    async fn publish(&self, events: &[LoggedEvent], generation: i64, window: usize) -> Published {
        // What is dropped half-way takes its channel with it.
        let mut channel = match self.take_channel().await {
            Ok(channel) => channel,
            Err(error) => {
                return Published {
                    confirmed: 0,
                    failure: Some(Failure::Known(error)),
                };
            }
        };
        let published = channel
            .publish(&Publishable {
                events,
                form: &self.form,
                schemas: self.settings.get().event_schemas().clone(),
                generation,
                window,
                timeout: self.confirm_timeout,
                server: &self.connection.server(),
            })
            .await;
        if published.failure.is_none() {
            *self.channel.lock() = Some(channel);
        }
        published
    }

    /// The channel of the last chunk, or a new one.
    async fn take_channel(&self) -> Result<OutletChannel, SendError> {
        let kept = self.channel.lock().take();
        if let Some(channel) = kept.filter(OutletChannel::is_usable) {
            return Ok(channel);
        }
        let server = self.connection.server();
        let failed = |error: lapin::Error| opening_error(&error, &server);
        let over = self.connection.open().await.map_err(failed)?;
        let opened = tokio::time::timeout(self.confirm_timeout, self.new_channel(&over)).await;
        opened.unwrap_or_else(|_| {
            over.suspect();
            let limit = humantime::format_duration(self.confirm_timeout);
            let reason = format!("{server} has opened no channel within {limit}");
            Err(SendError::Unavailable(reason))
        })
    }

    async fn new_channel(&self, over: &Arc<OpenConnection>) -> Result<OutletChannel, SendError> {
        let server = self.connection.server();
        if let Some(stream) = &self.stream {
            let declared = stream.declare(&over.connection).await;
            declared.map_err(|error| {
                let server = format!("the stream {:?} of {server}", stream.name);
                opening_error(&error, &server)
            })?;
        }
        let opened = over.channel().await;
        let channel = opened.map_err(|error| opening_error(&error, &server))?;
        Ok(OutletChannel::new(Arc::clone(over), channel))
    }
}

#[async_trait]
impl Outlet for RabbitOutlet {
    fn name(&self) -> &str {
        &self.name
    }

    fn subscription(&self) -> Subscription {
        self.subscription.clone()
    }

    async fn send(&self, events: &[LoggedEvent]) -> Result<(), SendError> {
        let generation = self.log.generation().await.map_err(|error| {
            SendError::Unavailable(format!("the generation of the log cannot be read: {error}"))
        })?;
        let (mut sent, mut window) = (0, self.window);
        while let Some(rest) = events.get(sent..).filter(|rest| !rest.is_empty()) {
            let published = self.publish(rest, generation, window).await;
            sent += published.confirmed;
            match published.failure {
                None => {}
                // One at a time, which one it is will show.
                Some(Failure::OneOfSeveral) => window = 1,
                Some(Failure::Known(error)) => {
                    let error = Box::new(error);
                    return Err(SendError::At { sent, error });
                }
            }
        }
        Ok(())
    }
}

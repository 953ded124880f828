//! `Feed`: the follower that turns a stream's events into its messages.

use super::stream::Stream;
use crate::followers::{Projection, Subscription};
use crate::store::commit_log::LoggedEvent;
use crate::store::followers::OnError;
use crate::store::streams::{Deliver, follower_name};
use crate::store::transaction::{Effect, EffectError, Transaction};
use async_trait::async_trait;
use std::sync::Arc;

pub(super) struct Feed {
    name: String,
    /// The stream's number.
    id: i32,
    stream: Arc<Stream>,
}

impl Feed {
    pub(super) fn new(id: i32, stream: Arc<Stream>) -> Self {
        Self {
            name: follower_name(&stream.name),
            id,
            stream,
        }
    }
}

#[async_trait]
impl Projection for Feed {
    fn name(&self) -> &str {
        &self.name
    }

    fn subscription(&self) -> Subscription {
        Subscription {
            types: self.stream.types.clone(),
            start: self.stream.start,
            on_error: OnError::DeadLetter,
        }
    }

    async fn apply(
        &self,
        transaction: &mut Transaction<'_>,
        events: &[LoggedEvent],
    ) -> Result<(), EffectError> {
        let messages = events
            .iter()
            .filter_map(|event| self.stream.message(event).transpose());
        let messages = messages.collect::<Result<Vec<_>, _>>();
        let deliver = Deliver {
            stream: self.id,
            messages: messages.map_err(EffectError::Refused)?,
        };
        deliver.run(transaction).await
    }

    /// What was acknowledged would be handed out again.
    fn can_rebuild(&self) -> bool {
        false
    }

    async fn reset(&self, _: &mut Transaction<'_>) -> Result<(), EffectError> {
        Err(EffectError::Refused("a stream is not rebuilt".to_owned()))
    }
}

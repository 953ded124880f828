//! Sending a chunk, and then storing the position.

use super::follower::{Cursor, LogReader, Next};
use super::outlet::{Outlet, SendError};
use crate::event::Cause;
use crate::store::commit_log::{LoggedEvent, Position};
use crate::store::transaction::EffectError;
use crate::store::{ErrorKind, StoreError};
use crate::supervision::failpoint;
use futures::FutureExt;
use std::panic::AssertUnwindSafe;

/// A chunk that was not sent as a whole.
pub(super) struct NotSent {
    /// How many events the receiver has confirmed all the same.
    sent: usize,
    /// Whether it is the event behind them that failed, and no other one.
    is_exact: bool,
    pub(super) error: EffectError,
}

impl NotSent {
    fn new(error: SendError) -> Self {
        match error {
            SendError::At { sent, error } => {
                let behind = Self::new(*error);
                Self {
                    sent: sent.saturating_add(behind.sent),
                    is_exact: true,
                    error: behind.error,
                }
            }
            SendError::Refused(message) => Self::whole(EffectError::Refused(message)),
            SendError::Operator(message) => {
                Self::whole(StoreError::new(ErrorKind::Operator, message).into())
            }
            SendError::Unavailable(message) => {
                Self::whole(StoreError::new(ErrorKind::Outage, message).into())
            }
        }
    }

    fn whole(error: EffectError) -> Self {
        Self {
            sent: 0,
            is_exact: false,
            error,
        }
    }
}

impl LogReader<'_> {
    /// Sends a chunk. Between the receiver's confirmation and the new position nothing is open, so a
    /// crash there has the chunk sent again.
    pub(super) async fn send(
        &mut self,
        cursor: &mut Cursor,
        outlet: &dyn Outlet,
        events: Vec<LoggedEvent>,
        to: Position,
    ) -> Next {
        let Err(failed) = self.deliver(outlet, &events).await else {
            return self.sent(cursor, outlet, to).await;
        };
        let (sent, rest) = events.split_at(failed.sent.min(events.len()));
        if let Some(last) = sent.last() {
            match self.sent(cursor, outlet, last.position).await {
                Next::Moved => self.has_moved(cursor, sent.len()),
                next => return next,
            }
        }
        match (rest.first(), &failed.error) {
            (Some(refused), EffectError::Refused(_)) if failed.is_exact => {
                self.fails_alone(cursor, refused, &failed.error).await
            }
            _ => self.not_applied(cursor, rest, failed.error).await,
        }
    }

    /// Stores the position behind what the receiver has confirmed.
    async fn sent(&mut self, cursor: &mut Cursor, outlet: &dyn Outlet, to: Position) -> Next {
        failpoint::hit_part("follower.sent", outlet.name()).await;
        cursor.read = to;
        loop {
            // Sent is sent: the position is stored as soon as that works.
            match self.store_progress(cursor).await {
                Next::Again => self.rest().await,
                next => return next,
            }
        }
    }

    /// Hands events to the outlet.
    pub(super) async fn deliver(
        &self,
        outlet: &dyn Outlet,
        events: &[LoggedEvent],
    ) -> Result<(), NotSent> {
        match AssertUnwindSafe(outlet.send(events)).catch_unwind().await {
            Ok(sent) => sent.map_err(NotSent::new),
            Err(_) => {
                let message = "the follower's code panicked";
                Err(NotSent::whole(
                    StoreError::transient(Cause::Panic, message).into(),
                ))
            }
        }
    }
}

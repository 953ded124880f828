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
        if let Err(error) = self.deliver(outlet, &events).await {
            return self.not_applied(cursor, &events, error).await;
        }
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
    ) -> Result<(), EffectError> {
        match AssertUnwindSafe(outlet.send(events)).catch_unwind().await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(SendError::Refused(message))) => Err(EffectError::Refused(message)),
            Ok(Err(SendError::Unavailable(message))) => {
                Err(StoreError::new(ErrorKind::Outage, message).into())
            }
            Err(_) => {
                let message = "the follower's code panicked";
                Err(StoreError::transient(Cause::Panic, message).into())
            }
        }
    }
}

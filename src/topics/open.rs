//! Opening a stream: whether there is room for it, and where it begins.

use super::format::StreamFormat;
use super::roll::{Holder, NoSeat, StreamClient};
use super::start::Topics;
use super::subscriber::{Parts, Subscriber};
use crate::config::topics::STREAM_BYTES;
use crate::event::schemas::SchemaView;
use crate::store::StoreError;
use crate::store::commit_log::{Position, TypePatterns};
use crate::store::topics::LogBounds;
use chrono::{DateTime, Utc};
use std::sync::Arc;

/// Where a stream begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StartAt {
    /// With the first event that the log still has.
    Beginning,
    /// Behind the last event.
    Now,
    /// With the first event that the log still has of those that got their number at this time or later.
    Time(DateTime<Utc>),
    /// Behind a position. No event behind it may be deleted.
    Position { generation: i64, position: Position },
}

/// What a client asks for.
pub struct Opening {
    pub holder: Holder,
    pub client: Option<Box<dyn StreamClient>>,
    pub types: TypePatterns,
    pub schema: SchemaView,
    pub format: StreamFormat,
    pub start: StartAt,
    /// Go on with what comes; otherwise the stream ends where the log ends now.
    pub follow: bool,
}

/// Why a stream is not opened.
#[derive(Debug)]
pub enum NotOpened {
    NoSeat(NoSeat),
    /// The position belongs to another generation than this.
    OtherGeneration(i64),
    /// Events behind the position are deleted.
    Deleted,
    /// The log ends before the position, here.
    Beyond(Position),
    Store(StoreError),
}

impl From<NoSeat> for NotOpened {
    fn from(why: NoSeat) -> Self {
        Self::NoSeat(why)
    }
}

impl From<StoreError> for NotOpened {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

impl Topics {
    /// Opens a stream.
    ///
    /// # Errors
    /// There is no room for it, the log has no such place, or the store fails.
    pub async fn open(&self, opening: Opening) -> Result<Subscriber, NotOpened> {
        let shared = &self.shared;
        let (most, most_of_holder) = {
            let settings = shared.settings.get();
            let topics = &settings.topics;
            (topics.max_streams, topics.max_streams_per_key)
        };
        let seated = shared
            .roll
            .take(opening.holder, opening.client, most, most_of_holder)?;
        let generation = shared.store.generation().await?;
        seated.seat.set_generation(generation);
        if !opening.follow {
            // So that it has what was accepted before the request.
            shared.store.number_commits().await?;
        }
        let bounds = shared.store.log_bounds().await?;
        let cursor = match opening.start {
            StartAt::Beginning => Position::START,
            StartAt::Now => bounds.end,
            StartAt::Time(time) => shared.store.position_at(time).await?,
            StartAt::Position {
                generation: given, ..
            } if given != generation => return Err(NotOpened::OtherGeneration(generation)),
            StartAt::Position { position, .. } => self.checked(position, bounds).await?,
        };
        Ok(Subscriber::new(Parts {
            shared: Arc::clone(shared),
            seated,
            types: opening.types,
            schema: opening.schema,
            format: opening.format,
            generation,
            cursor,
            until: (!opening.follow).then_some(bounds.end),
            deleted_to: bounds.deleted_to,
            // The settings see to it that there is room for as many streams as may be.
            _permit: shared.budget.take(STREAM_BYTES),
        }))
    }

    /// A position behind which the log is complete.
    async fn checked(&self, position: Position, bounds: LogBounds) -> Result<Position, NotOpened> {
        if position < bounds.deleted_to {
            return Err(NotOpened::Deleted);
        }
        if position > bounds.end.max(bounds.deleted_to) {
            // A database that was killed may have to give the last numbers again.
            let end = self.shared.store.number_commits().await?.end;
            if position > end {
                return Err(NotOpened::Beyond(end));
            }
        }
        Ok(position)
    }
}

//! The messages of the `BatchAccumulator`. They have a file of their own, so that the writer does not
//! import the accumulator, which imports the writer.

use crate::config::batch::BatchSettings;
use crate::event::Delivery;
use crate::supervision::ActorMessage;
use actix::Message;

/// A message to [`crate::batch::BatchAccumulator`].
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub enum AccumulatorMessage {
    /// Events for the open batch.
    Push(Push),
    /// A writer is idle.
    WriterReady {
        index: usize,
        /// Rows of its last batch that could not be written.
        bad_rows: usize,
    },
    /// New bounds; the open batch stays.
    Reconfigure(BatchSettings),
    /// The process is stopping: batches are due at once from now on.
    Drain,
    /// The events in the open batch are due; later ones are not.
    Flush,
    /// Drops the events whose source has closed and delivers them again.
    Discard,
    /// The ingest queue holds events, or a reader waits for an event that may be in the open batch.
    Nudge,
}

impl ActorMessage for AccumulatorMessage {
    fn name(&self) -> &'static str {
        match self {
            Self::Push(_) => "push",
            Self::WriterReady { .. } => "writer_ready",
            Self::Reconfigure(_) => "reconfigure",
            Self::Drain => "drain",
            Self::Flush => "flush",
            Self::Discard => "discard",
            Self::Nudge => "nudge",
        }
    }
}

/// Events from one source, in their order.
#[derive(Debug)]
pub struct Push {
    pub groups: Vec<Group>,
    /// The source delivers nothing more before some of its events are settled, so waiting for
    /// more of them is pointless.
    pub window_spent: bool,
}

/// Events that are treated alike.
#[derive(Debug)]
pub struct Group {
    /// How they join a batch.
    pub mode: PushMode,
    pub deliveries: Vec<Delivery>,
}

/// How events join a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PushMode {
    /// Together with others, in the order of arrival.
    Shared,
    /// In a batch of their own, ahead of the others.
    AloneFirst,
    /// In a batch of their own, behind what arrived before them.
    AloneInTurn,
}

impl AccumulatorMessage {
    /// Events that share batches with others.
    pub fn push(deliveries: Vec<Delivery>) -> Self {
        Self::Push(Push {
            groups: vec![Group {
                mode: PushMode::Shared,
                deliveries,
            }],
            window_spent: false,
        })
    }
}

//! Which events a declaration selects, and how it distributes them to lanes.

use crate::event::StoredEvent;
use crate::expression::{Expression, ExpressionError, InvalidExpression};
use crate::store::followers::LaneSpec;
use sha2::{Digest, Sha256};

/// The parsed form of a [`LaneSpec`].
#[derive(Debug, Clone)]
pub struct Selection {
    lanes: u32,
    when: Option<Expression>,
    key: Option<Expression>,
}

impl Selection {
    /// The selection of a declaration.
    ///
    /// # Errors
    /// One of its expressions cannot be parsed.
    pub fn new(spec: &LaneSpec) -> Result<Self, InvalidExpression> {
        let parse = |text: &Option<String>| text.as_deref().map(Expression::parse).transpose();
        Ok(Self {
            lanes: spec.lanes.max(1),
            when: parse(&spec.when)?,
            key: parse(&spec.key)?,
        })
    }

    /// Whether the condition holds for an event. Its type is not looked at.
    ///
    /// # Errors
    /// The condition cannot be evaluated on this event. The event has a run, which fails.
    pub fn selects(&self, event: &StoredEvent) -> Result<bool, ExpressionError> {
        self.when
            .as_ref()
            .map_or(Ok(true), |when| when.condition(event))
    }

    /// The key that decides about the event's lane; `None` if it has none, or none that can be evaluated.
    pub fn key(&self, event: &StoredEvent) -> Option<String> {
        self.key.as_ref()?.text(event).ok().flatten()
    }

    /// The lane of an event with this key, from 0.
    pub fn lane(&self, event: &StoredEvent, key: Option<&str>) -> u32 {
        match key {
            Some(key) => self.lane_of_key(key),
            None => self.lane_of(event.event_id.as_bytes()),
        }
    }

    /// The lane of events with this key.
    pub fn lane_of_key(&self, key: &str) -> u32 {
        self.lane_of(key.as_bytes())
    }

    fn lane_of(&self, bytes: &[u8]) -> u32 {
        if self.lanes == 1 {
            return 0;
        }
        // The same in every process and release: a lane must not change without a declaration.
        let hash = Sha256::digest(bytes);
        let head = hash
            .iter()
            .take(8)
            .fold(0_u64, |head, byte| head << 8 | u64::from(*byte));
        u32::try_from(head % u64::from(self.lanes)).unwrap_or(0)
    }
}

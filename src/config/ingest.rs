//! Settings of ingest: limits on events and on bytes in flight.

use super::{Invalid, in_range, units};
use bytesize::ByteSize;
use serde::Deserialize;
use std::sync::Arc;
use std::time::Duration;

/// `[ingest]`
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct IngestSettings {
    /// Producer of events that come without an API key.
    pub producer: Arc<str>,
    /// Maximum nesting depth of `eventData`.
    pub max_depth: usize,
    /// Maximum bytes of each of `id`, `userId`, `eventType` and `sessionId`.
    pub max_field_bytes: usize,
    /// Maximum age of the day inside a UUIDv7 id, in days.
    pub accept_days: u32,
    /// How long a request may wait to become durable.
    #[serde(with = "units::duration")]
    pub timeout: Duration,
    /// Maximum bytes of all events in flight in the process.
    pub max_in_flight: ByteSize,
}

impl IngestSettings {
    /// [`max_in_flight`](Self::max_in_flight) as a number of bytes of this machine.
    pub fn bytes_in_flight(&self) -> usize {
        usize::try_from(self.max_in_flight.as_u64()).unwrap_or(usize::MAX)
    }

    pub(super) fn validate(&self, found: &mut Vec<Invalid>) {
        if self.producer.is_empty() {
            found.push(Invalid::new("ingest.producer", "must not be empty"));
        }
        in_range(found, "ingest.max_depth", self.max_depth, 1..=512);
        // PostgreSQL refuses index entries beyond 2,704 bytes, and (user_id, event_type) is one.
        in_range(
            found,
            "ingest.max_field_bytes",
            self.max_field_bytes,
            36..=1_280,
        );
        in_range(found, "ingest.accept_days", self.accept_days, 1..=36_500);
        in_range(
            found,
            "ingest.max_in_flight",
            self.max_in_flight,
            ByteSize::mib(1)..=ByteSize::gib(64),
        );
        if self.timeout.is_zero() {
            found.push(Invalid::new("ingest.timeout", "must be longer than 0s"));
        }
    }
}

//! Settings of topics: streams of events over HTTP.

use super::{Invalid, in_range, units};
use bytesize::ByteSize;
use serde::Deserialize;
use std::time::Duration;

/// Bytes of `max_in_flight` that each stream has for itself.
pub const STREAM_BYTES: usize = 64 * 1024;

/// `[topics]`
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TopicSettings {
    /// Streams at a time.
    pub max_streams: usize,
    /// Streams at a time that one API key may have.
    pub max_streams_per_key: usize,
    /// Bytes of all events under way to subscribers.
    pub max_in_flight: ByteSize,
    /// Subscribers that read the log at a time, while they are behind the newest events.
    pub readers: usize,
    /// How long a client may take nothing of what is sent to it.
    #[serde(with = "units::duration")]
    pub patience: Duration,
}

impl TopicSettings {
    /// [`max_in_flight`](Self::max_in_flight) as a number of bytes of this machine.
    pub fn bytes_in_flight(&self) -> usize {
        usize::try_from(self.max_in_flight.as_u64()).unwrap_or(usize::MAX)
    }

    pub(super) fn validate(&self, found: &mut Vec<Invalid>) {
        in_range(found, "topics.max_streams", self.max_streams, 0..=100_000);
        in_range(
            found,
            "topics.max_streams_per_key",
            self.max_streams_per_key,
            0..=100_000,
        );
        in_range(found, "topics.readers", self.readers, 1..=100);
        in_range(
            found,
            "topics.max_in_flight",
            self.max_in_flight,
            ByteSize::mib(8)..=ByteSize::gib(64),
        );
        if self.patience < Duration::from_secs(1) || self.patience > Duration::from_secs(3_600) {
            found.push(Invalid::new(
                "topics.patience",
                format!(
                    "is {}, but must lie between 1s and 1h",
                    humantime::format_duration(self.patience)
                ),
            ));
        }
        let streams = self.max_streams.saturating_mul(STREAM_BYTES);
        if streams > self.bytes_in_flight() / 2 {
            found.push(Invalid::new(
                "topics.max_streams, topics.max_in_flight",
                format!(
                    "{} streams take {} alone, which is more than half of {}; lower the first or raise the second",
                    self.max_streams,
                    ByteSize::b(streams as u64),
                    self.max_in_flight
                ),
            ));
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::config::Sources;

    fn flaw(text: &str) -> Option<String> {
        let loaded = Sources::from_text(text).load();
        loaded.err().map(|error| error.to_string())
    }

    #[test]
    fn streams_fit_into_their_bytes() {
        assert_eq!(flaw(""), None);
        assert_eq!(flaw("topics.max_streams = 0"), None);
        for (text, reason) in [
            ("topics.max_streams = 5000", "topics.max_in_flight"),
            ("topics.max_in_flight = \"1 MiB\"", "must lie between"),
            ("topics.patience = \"0s\"", "between 1s and 1h"),
            ("topics.readers = 0", "topics.readers"),
        ] {
            let found = flaw(text).unwrap_or_default();
            assert!(found.contains(reason), "{text}: {found}");
        }
        let large = "topics.max_streams = 5000\ntopics.max_in_flight = \"1 GiB\"";
        assert_eq!(flaw(large), None);
    }
}

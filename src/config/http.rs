//! The HTTP door.

use super::{Invalid, in_range, units};
use bytesize::ByteSize;
use serde::Deserialize;
use std::net::IpAddr;
use std::time::Duration;

/// `[http]`
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HttpSettings {
    /// Address to listen on.
    pub bind: IpAddr,
    /// Port; 0 takes a free one.
    pub port: u16,
    /// Worker threads; 0 is one per core.
    pub workers: usize,
    /// Largest request body.
    pub max_body: ByteSize,
    /// Most events in one request.
    pub max_items: usize,
    /// How long a client may take to send its request.
    #[serde(with = "units::duration")]
    pub request_timeout: Duration,
    /// How long an idle connection stays open.
    #[serde(with = "units::duration")]
    pub keep_alive: Duration,
    /// Connections taken at once.
    pub max_connections: usize,
}

impl HttpSettings {
    pub(super) fn validate(&self, found: &mut Vec<Invalid>) {
        in_range(found, "http.workers", self.workers, 0..=256);
        in_range(found, "http.max_items", self.max_items, 1..=100_000);
        in_range(
            found,
            "http.max_connections",
            self.max_connections,
            1..=1_000_000,
        );
        in_range(
            found,
            "http.max_body",
            self.max_body,
            ByteSize::kib(1)..=ByteSize::mib(256),
        );
    }
}

//! Settings that must agree with each other.

use super::auth::WithoutKeys;
#[cfg(feature = "service")]
use super::schedules;
use super::{Invalid, Mode, Settings};

impl Settings {
    /// Adds what is invalid in values that must agree with each other.
    pub(super) fn cross_check(&self, found: &mut Vec<Invalid>) {
        #[cfg(feature = "service")]
        {
            let bounds = schedules::Bounds {
                limits: &self.item_limits(),
                max_bytes: self.max_event_bytes(),
                retention: self.store.retention,
            };
            schedules::validate(&self.schedules, &bounds, found);
        }
        if matches!(self.mode(), Mode::Database | Mode::Full) && self.store.url.is_empty() {
            found.push(Invalid::new(
                "store.url",
                format!(
                    "is empty, but mode {} stores in PostgreSQL; set it, or DATABASE_URL",
                    self.mode().as_str()
                ),
            ));
        }
        if !self.http.bind.is_loopback()
            && self.auth.keys.is_empty()
            && self.auth.without_keys == WithoutKeys::Refuse
        {
            found.push(Invalid::new(
                "http.bind",
                format!(
                    "is {}, reachable from other machines, but there are no API keys, so any \
                     client could write and read events. Make a key (eclusa config new-key NAME) and put \
                     it into auth.keys, or set http.bind to 127.0.0.1, or, where the network is \
                     private, set auth.without_keys to \"allow-beyond-loopback\" and list in \
                     http.allowed_hosts the host names by which callers reach the server",
                    self.http.bind
                ),
            ));
        } else if !self.http.bind.is_loopback()
            && self.auth.keys.is_empty()
            && self.http.allowed_hosts.is_empty()
        {
            found.push(Invalid::new(
                "http.allowed_hosts",
                "is empty, but auth.without_keys = \"allow-beyond-loopback\" needs the host names \
                 by which callers reach the server, such as [\"app\"]; requests that name another \
                 host are refused, so that no web page can act on the server through a browser. \
                 Where callers use localhost alone, as through a published port, write \
                 [\"localhost\"]",
            ));
        }
        if self.batch.max_bytes.as_u64() > self.ingest.max_in_flight.as_u64() {
            found.push(Invalid::new(
                "batch.max_bytes, ingest.max_in_flight",
                format!(
                    "a batch of {} can never fill: only {} may be in flight at once",
                    self.batch.max_bytes, self.ingest.max_in_flight
                ),
            ));
        }
        if self.http.max_body.as_u64() > self.ingest.max_in_flight.as_u64() {
            found.push(Invalid::new(
                "http.max_body, ingest.max_in_flight",
                format!(
                    "a request of {} can never be accepted: only {} may be in flight at once",
                    self.http.max_body, self.ingest.max_in_flight
                ),
            ));
        }
        if self.mode() == Mode::Full {
            self.cross_check_broker(found);
        } else if self.broker.is_ordered() {
            found.push(Invalid::new(
                "broker.order",
                format!(
                    "is \"user\", but mode {} has no RabbitMQ queues that could keep an order; set \
                     broker.url, or broker.order to \"none\"",
                    self.mode().as_str()
                ),
            ));
        }
    }

    fn cross_check_broker(&self, found: &mut Vec<Invalid>) {
        if self.broker.url.is_empty() {
            found.push(Invalid::new(
                "broker.url",
                "is empty, but mode full needs RabbitMQ; set it, or RABBITMQ_URL",
            ));
        }
        let shard = usize::from(self.broker.shard_prefetch);
        // Without an order the prefetch follows the weight of the messages; with one it is fixed, and
        // what is sorted onto the shards is a portion more.
        let (messages, keys) = if self.broker.is_ordered() {
            (
                shard as u64 * (u64::from(self.broker.shards) + 1),
                "broker.shard_prefetch, broker.max_message_bytes, ingest.max_in_flight",
            )
        } else {
            (
                4 * self.broker.channels as u64,
                "broker.channels, broker.max_message_bytes, ingest.max_in_flight",
            )
        };
        if messages * self.broker.max_message_bytes.as_u64() > self.ingest.max_in_flight.as_u64() {
            found.push(Invalid::new(
                keys,
                format!(
                    "{messages} messages of {} must fit into the {} that may be on their way; \
                     lower the first two or raise the last",
                    self.broker.max_message_bytes, self.ingest.max_in_flight
                ),
            ));
        }
        if self.broker.release_after > self.broker.consumer_timeout / 2 {
            found.push(Invalid::new(
                "broker.release_after, broker.consumer_timeout",
                format!(
                    "messages held for {} come near the broker's consumer timeout of {}, which \
                     closes the channel; keep it below half",
                    humantime::format_duration(self.broker.release_after),
                    humantime::format_duration(self.broker.consumer_timeout)
                ),
            ));
        }
        if self.batch.max_wait > self.broker.consumer_timeout / 2 {
            found.push(Invalid::new(
                "batch.max_wait, broker.consumer_timeout",
                format!(
                    "a batch that waits {} comes near the broker's consumer timeout of {}, which \
                     closes the channel; keep it below half",
                    humantime::format_duration(self.batch.max_wait),
                    humantime::format_duration(self.broker.consumer_timeout)
                ),
            ));
        }
    }
}

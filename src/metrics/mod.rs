//! All metrics of the process. The doc comment of a field is its help text on `/metrics`.

pub mod accounting;
mod by_type;

pub use accounting::{EventAccounting, PathAccounting};
pub use by_type::StoredByType;

use crate::event::{Cause, Source, Trigger};
use prometheus::core::Collector;
use prometheus::{
    Encoder, Gauge, GaugeVec, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec,
    IntGauge, IntGaugeVec, Opts, Registry, TextEncoder,
};

/// Buckets from 50 us to 10 s, for waits and work inside the process.
const INSIDE: &[f64] = &[
    0.000_05, 0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5,
    1.0, 2.5, 10.0,
];
/// Buckets from 1 ms to 5 min, for times that include the batch's wait or an outage.
const OUTSIDE: &[f64] = &[
    0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0,
    300.0,
];
/// Buckets for the number of events in a batch.
const SIZES: &[f64] = &[
    1.0, 2.0, 5.0, 10.0, 25.0, 50.0, 100.0, 250.0, 500.0, 1_000.0, 2_500.0, 5_000.0, 10_000.0,
];

/// A kind of metric that [`metrics!`] can build.
trait Build: Sized + Clone + Collector + 'static {
    fn build(name: &str, help: &str, labels: &[&str], buckets: &[f64]) -> prometheus::Result<Self>;
}

impl Build for IntCounter {
    fn build(name: &str, help: &str, _: &[&str], _: &[f64]) -> prometheus::Result<Self> {
        Self::with_opts(Opts::new(name, help))
    }
}
impl Build for Gauge {
    fn build(name: &str, help: &str, _: &[&str], _: &[f64]) -> prometheus::Result<Self> {
        Self::with_opts(Opts::new(name, help))
    }
}
impl Build for IntGauge {
    fn build(name: &str, help: &str, _: &[&str], _: &[f64]) -> prometheus::Result<Self> {
        Self::with_opts(Opts::new(name, help))
    }
}
impl Build for IntCounterVec {
    fn build(name: &str, help: &str, labels: &[&str], _: &[f64]) -> prometheus::Result<Self> {
        Self::new(Opts::new(name, help), labels)
    }
}
impl Build for IntGaugeVec {
    fn build(name: &str, help: &str, labels: &[&str], _: &[f64]) -> prometheus::Result<Self> {
        Self::new(Opts::new(name, help), labels)
    }
}
impl Build for GaugeVec {
    fn build(name: &str, help: &str, labels: &[&str], _: &[f64]) -> prometheus::Result<Self> {
        Self::new(Opts::new(name, help), labels)
    }
}
impl Build for Histogram {
    fn build(name: &str, help: &str, _: &[&str], buckets: &[f64]) -> prometheus::Result<Self> {
        Self::with_opts(HistogramOpts::new(name, help).buckets(buckets.to_vec()))
    }
}
impl Build for HistogramVec {
    fn build(name: &str, help: &str, labels: &[&str], buckets: &[f64]) -> prometheus::Result<Self> {
        Self::new(
            HistogramOpts::new(name, help).buckets(buckets.to_vec()),
            labels,
        )
    }
}

macro_rules! metrics {
    ($(#[doc = $help:literal] $field:ident: $kind:ident = $name:literal [$($label:literal),*] $buckets:expr;)*) => {
        /// All metrics of the process, registered once.
        pub struct Metrics {
            registry: Registry,
            /// Accounting of events by path and outcome.
            pub accounting: PathAccounting,
            /// Stored events by type.
            pub stored_by_type: StoredByType,
            $(#[doc = $help] pub $field: $kind,)*
        }

        impl Metrics {
            /// Builds and registers all metrics.
            ///
            /// # Errors
            /// A prometheus error when two metrics share a name.
            pub fn new() -> prometheus::Result<Self> {
                let registry = Registry::new();
                $(
                    let $field = <$kind as Build>::build($name, $help.trim(), &[$($label),*], $buckets)?;
                    registry.register(Box::new($field.clone()))?;
                )*
                let accounting = PathAccounting::new()?;
                registry.register(Box::new(accounting.clone()))?;
                let stored_by_type = StoredByType::new()?;
                registry.register(Box::new(stored_by_type.clone()))?;
                let metrics = Self { registry, accounting, stored_by_type, $($field,)* };
                metrics.begin_series();
                Ok(metrics)
            }
        }
    };
}

metrics! {
    /// Valid events accepted, by source.
    accepted: IntCounterVec = "eclusa_events_accepted_total" ["source"] &[];
    /// Events committed in the log as new rows.
    stored: IntCounter = "eclusa_events_stored_total" [] &[];
    /// Events whose id the log already had.
    duplicate: IntCounter = "eclusa_events_duplicate_total" [] &[];
    /// Events whose id the log already had, with other content; the first one stays.
    conflicting: IntCounter = "eclusa_events_conflicting_total" [] &[];
    /// Events and messages dead-lettered, by cause.
    dead_lettered: IntCounterVec = "eclusa_events_dead_lettered_total" ["cause"] &[];
    /// Dead letters in the table that were not replayed, as of the last count.
    dead_letters: IntGauge = "eclusa_dead_letters" [] &[];
    /// Dead letters replayed.
    dead_letters_replayed: IntCounter = "eclusa_dead_letters_replayed_total" [] &[];
    /// Events refused, by reason.
    refused: IntCounterVec = "eclusa_events_refused_total" ["reason"] &[];
    /// Events that break the schema of their type, by what became of them (refused or dead_lettered).
    schema_invalid: IntCounterVec = "eclusa_events_schema_invalid_total" ["event_type", "action"] &[];
    /// Events published to a retry queue.
    retried: IntCounter = "eclusa_events_retried_total" [] &[];
    /// Time from receiving an event to committing its row, in seconds.
    event_latency: Histogram = "eclusa_event_latency_seconds" [] OUTSIDE;
    /// Attempts of reactions that have ended, by outcome.
    reaction_attempts: IntCounterVec = "eclusa_reaction_attempts_total" ["reaction", "outcome"] &[];
    /// Time of an attempt of a reaction, in seconds.
    reaction_attempt_seconds: HistogramVec = "eclusa_reaction_attempt_seconds" ["reaction"] OUTSIDE;
    /// For how long the oldest run has been due that waits in the queue of a reaction, in seconds.
    reaction_oldest_due_seconds: GaugeVec = "eclusa_reaction_oldest_due_seconds" ["reaction"] &[];
    /// Messages of a stream that wait to be handed out.
    stream_waiting: IntGaugeVec = "eclusa_stream_waiting_messages" ["stream"] &[];
    /// Messages of a stream that are handed out and not acknowledged.
    stream_leased: IntGaugeVec = "eclusa_stream_leased_messages" ["stream"] &[];
    /// Sessions of collectors, which are slots in use.
    stream_sessions: IntGaugeVec = "eclusa_stream_sessions" ["stream"] &[];
    /// For how long the oldest message waits that was never handed out, in seconds.
    stream_oldest_waiting_seconds: GaugeVec = "eclusa_stream_oldest_waiting_seconds" ["stream"] &[];
    /// Messages handed out to collectors.
    stream_delivered: IntCounterVec = "eclusa_stream_delivered_total" ["stream"] &[];
    /// Messages acknowledged by collectors.
    stream_acknowledged: IntCounterVec = "eclusa_stream_acknowledged_total" ["stream"] &[];
    /// Messages handed out that were handed out before.
    stream_redelivered: IntCounterVec = "eclusa_stream_redelivered_total" ["stream"] &[];
    /// Subscribers to topics: newest (at the end of the log, where they share reads) or behind.
    topic_subscribers: IntGaugeVec = "eclusa_topic_subscribers" ["state"] &[];
    /// Events sent to subscribers.
    topic_events: IntCounter = "eclusa_topic_events_sent_total" [] &[];
    /// Subscribers dropped, by reason (slow, revoked, generation, deleted or stopping).
    topic_dropped: IntCounterVec = "eclusa_topic_dropped_total" ["reason"] &[];
    /// Reads of the log for subscribers: shared by those at its end, or own ones of those behind.
    topic_reads: IntCounterVec = "eclusa_topic_reads_total" ["by"] &[];
    /// Bytes of events under way to subscribers, and of their connections.
    topic_bytes: IntGauge = "eclusa_topic_bytes" [] &[];
    /// What each capture does in this process: 1 for the state that holds.
    capture_state: IntGaugeVec = "eclusa_capture_state" ["capture", "state"] &[];
    /// Bytes of the captured server's log behind the position that the slot has confirmed.
    capture_lag_bytes: IntGaugeVec = "eclusa_capture_lag_bytes" ["capture"] &[];
    /// Bytes of log that the captured server keeps for the slot.
    capture_kept_bytes: IntGaugeVec = "eclusa_capture_kept_bytes" ["capture"] &[];
    /// Whether the server keeps what the slot has not read (wal_status reserved or extended).
    capture_slot_safe: IntGaugeVec = "eclusa_capture_slot_safe" ["capture"] &[];
    /// Changes that were read from slots, with those that were read again.
    capture_changes: IntCounterVec = "eclusa_capture_changes_total" ["capture"] &[];
    /// Rows that snapshots have read.
    capture_snapshot_rows: IntCounterVec = "eclusa_capture_snapshot_rows_total" ["capture"] &[];
    /// Tables whose snapshots are not complete.
    capture_tables_unread: IntGaugeVec = "eclusa_capture_tables_unread" ["capture"] &[];
    /// Batches dispatched to a writer, by trigger.
    batches_flushed: IntCounterVec = "eclusa_batches_flushed_total" ["trigger"] &[];
    /// Events in a batch dispatched to a writer.
    batch_events: Histogram = "eclusa_batch_events" [] SIZES;
    /// Time of one write of rows to the store, in seconds, by outcome (ok or the kind of error).
    store_write: HistogramVec = "eclusa_store_write_seconds" ["outcome"] INSIDE;
    /// Bytes of events in flight in the process.
    in_flight_bytes: IntGauge = "eclusa_in_flight_bytes" [] &[];
    /// Messages waiting in an actor's mailbox.
    mailbox_depth: IntGaugeVec = "eclusa_actor_mailbox_depth" ["actor"] &[];
    /// Time a message waited in an actor's mailbox, in seconds.
    mailbox_wait: HistogramVec = "eclusa_actor_mailbox_wait_seconds" ["actor"] INSIDE;
    /// Time an actor took to handle a message, in seconds.
    handle: HistogramVec = "eclusa_actor_handle_seconds" ["actor", "message"] INSIDE;
    /// Times an actor was restarted, by cause (panic or stopped).
    restarts: IntCounterVec = "eclusa_actor_restarts_total" ["actor", "cause"] &[];
    /// State of a circuit breaker: 0 closed, 1 half open, 2 open.
    breaker_state: IntGaugeVec = "eclusa_breaker_state" ["breaker"] &[];
    /// Times a circuit breaker opened.
    breaker_opened: IntCounterVec = "eclusa_breaker_opened_total" ["breaker"] &[];
    /// Events written directly to the store because the broker was unavailable.
    fallback: IntCounter = "eclusa_broker_fallback_events_total" [] &[];
    /// Whether the connection to the broker is up.
    broker_connected: IntGauge = "eclusa_broker_connected" [] &[];
    /// Times the connection to the broker was lost or could not be opened.
    broker_failures: IntCounter = "eclusa_broker_failures_total" [] &[];
    /// Shards that this process consumes, with an order by user.
    shards_active: IntGauge = "eclusa_shards_active" [] &[];
    /// Messages published to the work queue or a shard queue and confirmed.
    frames_published: IntCounter = "eclusa_frames_published_total" [] &[];
    /// Messages consumed from the work queue or a shard queue.
    messages_consumed: IntCounter = "eclusa_messages_consumed_total" [] &[];
    /// Whether this process holds a lease, by lease name.
    lease_held: IntGaugeVec = "eclusa_lease_held" ["lease"] &[];
    /// Commits of the log that this process has numbered.
    commits_numbered: IntCounter = "eclusa_log_commits_numbered_total" [] &[];
    /// Time for which the oldest commit of the log has been waiting for its number, in seconds.
    unnumbered_seconds: Gauge = "eclusa_log_unnumbered_seconds" [] &[];
    /// Events of all types behind a follower's position, roughly if there are many.
    follower_lag_events: IntGaugeVec = "eclusa_follower_lag_events" ["follower"] &[];
    /// Time for which the oldest event behind a follower's position has been in the log, in seconds.
    follower_lag_seconds: GaugeVec = "eclusa_follower_lag_seconds" ["follower"] &[];
    /// Events that this process has applied for a follower, or sent.
    follower_applied: IntCounterVec = "eclusa_follower_applied_total" ["follower"] &[];
    /// Failures of a follower, by kind (outage, operator, transient, poison or refused).
    follower_failures: IntCounterVec = "eclusa_follower_failures_total" ["follower", "kind"] &[];
    /// State of a follower (running, paused, broken or gapped): 1 for the current one.
    follower_state: IntGaugeVec = "eclusa_follower_state" ["follower", "state"] &[];
    /// Days that the retention keeps because a follower has not read them, as of its last run here.
    retention_held: IntGauge = "eclusa_retention_held_partitions" [] &[];
    /// Day partitions of the log dropped by the retention.
    retention_partitions_dropped: IntCounter = "eclusa_retention_partitions_dropped_total" [] &[];
    /// Events without a day partition deleted by the retention.
    retention_rows_deleted: IntCounter = "eclusa_retention_rows_deleted_total" [] &[];
    /// Retention runs that failed and are retried.
    retention_failures: IntCounter = "eclusa_retention_failures_total" [] &[];
    /// HTTP requests answered, by route pattern, method and status.
    http_requests: IntCounterVec = "eclusa_http_requests_total" ["route", "method", "status"] &[];
    /// Time to answer an HTTP request, in seconds, by route pattern.
    http_seconds: HistogramVec = "eclusa_http_request_seconds" ["route"] OUTSIDE;
}

impl Metrics {
    /// Creates the series whose labels are known beforehand, so that alerts can use them from the
    /// start.
    fn begin_series(&self) {
        for source in Source::ALL {
            self.accepted.with_label_values(&[source.as_str()]);
        }
        for cause in Cause::ALL {
            self.dead_lettered.with_label_values(&[cause.as_str()]);
        }
        for trigger in Trigger::ALL {
            self.batches_flushed.with_label_values(&[trigger.as_str()]);
        }
        for reason in ["slow", "revoked", "generation", "deleted", "stopping"] {
            self.topic_dropped.with_label_values(&[reason]);
        }
        for state in ["newest", "behind"] {
            self.topic_subscribers.with_label_values(&[state]);
        }
        for reason in [
            "invalid",
            "unauthorized",
            "too_large",
            "overloaded",
            "unavailable",
            "rejected",
            "too_slow",
            "internal",
        ] {
            self.refused.with_label_values(&[reason]);
        }
    }

    /// All metrics in Prometheus text format.
    ///
    /// # Errors
    /// An error of prometheus's encoder.
    pub fn render(&self) -> prometheus::Result<String> {
        let mut text = Vec::new();
        TextEncoder::new().encode(&self.registry.gather(), &mut text)?;
        Ok(String::from_utf8_lossy(&text).into_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn doc_comments_are_the_help_and_counters_start_at_zero() {
        let metrics = Metrics::new().unwrap();
        let text = metrics.render().unwrap();
        assert!(text.contains(
            "# HELP eclusa_events_stored_total Events committed in the log as new rows."
        ));
        assert!(text.contains("\neclusa_events_stored_total 0\n"));
    }
}

//! How far a follower is behind, for the metrics.

use super::log_end::LogEnd;
use crate::event::Cause;
use crate::metrics::Metrics;
use crate::store::CommitLog;
use crate::store::commit_log::Position;
use crate::store::followers::FollowerState;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;
use tokio::sync::watch;

/// How often the lag of a follower that is behind is measured.
const EVERY: Duration = Duration::from_secs(2);

/// The metrics of one follower, which this process shows while it runs it.
pub(crate) struct FollowerMetrics {
    pub(super) name: String,
    pub(super) metrics: Arc<Metrics>,
    position: AtomicI64,
}

impl FollowerMetrics {
    pub(super) fn new(name: &str, metrics: Arc<Metrics>) -> Self {
        Self {
            name: name.to_owned(),
            metrics,
            position: AtomicI64::new(0),
        }
    }

    pub(crate) fn moved_to(&self, position: Position) {
        self.position.store(position.0, Ordering::Release);
    }

    pub(crate) fn applied(&self, events: usize) {
        let labels = [self.name.as_str()];
        let applied = self.metrics.follower_applied.with_label_values(&labels);
        applied.inc_by(events as u64);
    }

    pub(super) fn failed(&self, kind: &str) {
        let labels = [self.name.as_str(), kind];
        self.metrics
            .follower_failures
            .with_label_values(&labels)
            .inc();
    }

    pub(super) fn dead_lettered(&self) {
        let labels = [Cause::Follower.as_str()];
        self.metrics.dead_lettered.with_label_values(&labels).inc();
    }

    pub(super) fn state(&self, current: FollowerState) {
        for state in FollowerState::ALL {
            let labels = [self.name.as_str(), state.as_str()];
            let gauge = self.metrics.follower_state.with_label_values(&labels);
            gauge.set(i64::from(state == current));
        }
    }

    /// Measures the lag, again and again. Never ends.
    pub(super) async fn measure(&self, log: &dyn CommitLog, end: &watch::Receiver<LogEnd>) {
        loop {
            let position = Position(self.position.load(Ordering::Acquire));
            let at_end = position >= end.borrow().end;
            let behind = match at_end {
                true => Ok((0, 0.0)),
                false => log.backlog(position).await,
            };
            match behind {
                Ok((events, seconds)) => self.set(events, seconds),
                Err(error) => {
                    tracing::debug!(follower = self.name, %error, "lag not measured");
                }
            }
            tokio::time::sleep(EVERY).await;
        }
    }

    fn set(&self, events: u64, seconds: f64) {
        let labels = [self.name.as_str()];
        let gauge = self.metrics.follower_lag_events.with_label_values(&labels);
        gauge.set(i64::try_from(events).unwrap_or(i64::MAX));
        let gauge = self.metrics.follower_lag_seconds.with_label_values(&labels);
        gauge.set(seconds);
    }
}

/// Another process shows them from now on.
impl Drop for FollowerMetrics {
    fn drop(&mut self) {
        let labels = [self.name.as_str()];
        // Errors say that there are none.
        let _ = self
            .metrics
            .follower_lag_events
            .remove_label_values(&labels);
        let _ = self
            .metrics
            .follower_lag_seconds
            .remove_label_values(&labels);
        for state in FollowerState::ALL {
            let labels = [self.name.as_str(), state.as_str()];
            let _ = self.metrics.follower_state.remove_label_values(&labels);
        }
    }
}

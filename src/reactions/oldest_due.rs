//! The metric of the oldest due run, while a lane is here to look at the queue.

use crate::metrics::Metrics;
use std::sync::Arc;
use std::time::Duration;

/// Says for how long the oldest run of a reaction has been due. Dropped with its lane, it takes the series away, so that
/// no process shows what it no longer looks at; another lane of the same reaction sets it again with its next look.
pub(super) struct OldestDue {
    reaction: Arc<str>,
    metrics: Arc<Metrics>,
}

impl OldestDue {
    pub(super) fn new(reaction: Arc<str>, metrics: Arc<Metrics>) -> Self {
        Self { reaction, metrics }
    }

    pub(super) fn set(&self, overdue: Duration) {
        self.metrics
            .reaction_oldest_due_seconds
            .with_label_values(&[&*self.reaction])
            .set(overdue.as_secs_f64());
    }
}

impl Drop for OldestDue {
    fn drop(&mut self) {
        // An error says that it was never set.
        let labels = [&*self.reaction];
        let _ = self
            .metrics
            .reaction_oldest_due_seconds
            .remove_label_values(&labels);
    }
}

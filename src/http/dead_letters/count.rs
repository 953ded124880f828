//! The number of dead letters, for `/metrics`.

use crate::metrics::Metrics;
use crate::store::DeadLetterStore;
use crate::store::dead_letters::{LetterFilter, LetterState};
use parking_lot::Mutex;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// A count is good for this long: scrapes by several do not count several times.
const FRESH: Duration = Duration::from_secs(2);
/// A scrape does not wait longer for the store; it then shows the last count.
const PATIENCE: Duration = Duration::from_millis(500);

/// When they were last counted; clones share it.
#[derive(Clone, Default)]
pub struct LetterCount {
    last: Arc<Mutex<Option<Instant>>>,
}

impl LetterCount {
    /// Counts again, unless that was done just now.
    pub async fn refresh(&self, letters: &dyn DeadLetterStore, metrics: &Metrics) {
        {
            let mut last = self.last.lock();
            if last.is_some_and(|last| last.elapsed() < FRESH) {
                return;
            }
            *last = Some(Instant::now());
        }
        let dead = LetterFilter {
            state: Some(LetterState::Dead),
            ..LetterFilter::default()
        };
        let counting = letters.count_letters(&dead);
        if let Ok(Ok(count)) = tokio::time::timeout(PATIENCE, counting).await {
            let count = i64::try_from(count).unwrap_or(i64::MAX);
            metrics.dead_letters.set(count);
        }
    }
}

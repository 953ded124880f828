//! The number of dead letters, for `/metrics`.

use crate::metrics::Metrics;
use crate::store::DeadLetterStore;
use crate::store::dead_letters::{DeadLetterFilter, DeadLetterState};
use parking_lot::Mutex;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::runtime::Handle;

/// A count is good for this long: scrapes by several do not count several times.
const FRESH: Duration = Duration::from_secs(2);

/// When they were last counted; clones share it.
#[derive(Clone, Default)]
pub struct DeadLetterCount {
    last: Arc<Mutex<Option<Instant>>>,
    running: Arc<tokio::sync::Mutex<()>>,
}

impl DeadLetterCount {
    /// Starts a count, unless one is running or was started just now. Waits for none: the metric
    /// shows the last one that succeeded.
    pub fn refresh(&self, letters: &Arc<dyn DeadLetterStore>, metrics: &Arc<Metrics>) {
        let Ok(running) = Arc::clone(&self.running).try_lock_owned() else {
            return;
        };
        {
            let mut last = self.last.lock();
            if last.is_some_and(|last| last.elapsed() < FRESH) {
                return;
            }
            *last = Some(Instant::now());
        }
        let (letters, metrics) = (Arc::clone(letters), Arc::clone(metrics));
        let dead = DeadLetterFilter {
            state: Some(DeadLetterState::Dead),
            ..DeadLetterFilter::default()
        };
        // Not the scrape's own future, which ends with its caller's patience.
        Handle::current().spawn(async move {
            let _running = running;
            match letters.count_letters(&dead).await {
                Ok(count) => metrics
                    .dead_letters
                    .set(i64::try_from(count).unwrap_or(i64::MAX)),
                Err(error) => tracing::debug!(%error, "dead letters not counted"),
            }
        });
    }
}

//! `ShardBalancer`: how many shards a replica takes. There is no coordinator: each replica knows the
//! number of replicas, and keeps no more than its even part. A shard that stays without a consumer is
//! taken by any replica, so that a wrong number costs evenness only.

use crate::broker::Link;
use crate::metrics::Metrics;
use parking_lot::Mutex;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// A shard without a consumer for so long is taken by any replica.
const ORPHANED: Duration = Duration::from_millis(1_500);
/// First and longest pause between two shards released. It grows when the last one came back.
const PAUSE: (Duration, Duration) = (Duration::from_secs(2), Duration::from_secs(60));

struct BalancerStep {
    held: usize,
    given_up: Instant,
    pause: Duration,
}

/// The shards of this replica; clones share the count.
#[derive(Clone)]
pub struct ShardBalancer {
    course: Arc<Mutex<BalancerStep>>,
    metrics: Arc<Metrics>,
}

impl ShardBalancer {
    pub fn new(metrics: Arc<Metrics>) -> Self {
        let course = BalancerStep {
            held: 0,
            given_up: Instant::now(),
            pause: PAUSE.0,
        };
        Self {
            course: Arc::new(Mutex::new(course)),
            metrics,
        }
    }

    /// Whether to take a shard that has had no owner for so long.
    pub fn may_take(&self, link: &Link, orphaned: Duration) -> bool {
        self.course.lock().held < even(link) || orphaned >= ORPHANED
    }

    /// Counts a shard that was taken, until it is dropped.
    pub fn hold(&self, link: &Link) -> ShardGuard {
        let mut course = self.course.lock();
        if course.held >= even(link) {
            course.pause = (course.pause * 2).min(PAUSE.1);
        }
        course.held += 1;
        self.metrics.shards_active.inc();
        ShardGuard {
            share: self.clone(),
        }
    }

    /// Waits until there are more shards here than this replica's part, and one is to be given up.
    pub async fn is_too_much(&self, link: &Link) {
        const LOOK: Duration = Duration::from_millis(500);
        loop {
            tokio::time::sleep(LOOK).await;
            let mut course = self.course.lock();
            if course.held > even(link) && course.given_up.elapsed() >= course.pause {
                course.given_up = Instant::now();
                return;
            }
        }
    }
}

/// A replica's even part, rounded up.
fn even(link: &Link) -> usize {
    link.assignment().map_or(0, |assignment| {
        usize::from(assignment.shards.count).div_ceil(assignment.replicas())
    })
}

/// A shard held; dropping it says that it is no longer.
pub struct ShardGuard {
    share: ShardBalancer,
}

impl Drop for ShardGuard {
    fn drop(&mut self) {
        let mut course = self.share.course.lock();
        course.held = course.held.saturating_sub(1);
        self.share.metrics.shards_active.dec();
    }
}

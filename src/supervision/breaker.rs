//! Circuit breakers around what can be away: the store and the broker.
//!
//! *Closed* lets work through. Failures in a row *open* it: work pauses or is refused at once
//! instead of waiting for one time-out after another. After a pause that grows from time to time it
//! is *half open*: a probe, not the users' work, finds out whether it may close.

use super::Backoff;
use crate::metrics::Metrics;
use actix::{Actor, AsyncContext, Context, Supervised, WrapFuture};
use futures::future::BoxFuture;
use parking_lot::Mutex;
use prometheus::{IntCounter, IntGauge};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::watch;

/// Failures in a row that open it. One alone may be a single dead connection in a pool.
const FAILURES: u32 = 2;
/// First and longest pause before a probe.
const PAUSE: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(10));
/// Closed for so long, its next pause is the shortest again.
const CALM: Duration = Duration::from_secs(30);

/// Whether work passes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BreakerState {
    /// It does.
    Closed,
    /// A probe is under way.
    HalfOpen,
    /// It does not.
    Open,
}

impl BreakerState {
    /// The word in readiness and logs.
    pub fn as_str(self) -> &'static str {
        match self {
            BreakerState::Closed => "closed",
            BreakerState::HalfOpen => "half open",
            BreakerState::Open => "open",
        }
    }

    fn number(self) -> i64 {
        match self {
            BreakerState::Closed => 0,
            BreakerState::HalfOpen => 1,
            BreakerState::Open => 2,
        }
    }
}

struct Course {
    failures: u32,
    backoff: Backoff,
    probe_at: Instant,
    closed_since: Instant,
}

struct Inner {
    name: &'static str,
    state: watch::Sender<BreakerState>,
    course: Mutex<Course>,
    gauge: IntGauge,
    opened: IntCounter,
}

/// A breaker; clones share its state.
#[derive(Clone)]
pub struct Breaker {
    inner: Arc<Inner>,
}

impl Breaker {
    /// A closed breaker.
    pub fn new(name: &'static str, metrics: &Metrics) -> Self {
        let now = Instant::now();
        Self {
            inner: Arc::new(Inner {
                name,
                state: watch::Sender::new(BreakerState::Closed),
                course: Mutex::new(Course {
                    failures: 0,
                    backoff: Backoff::new(PAUSE.0, PAUSE.1),
                    probe_at: now,
                    closed_since: now,
                }),
                gauge: metrics.breaker_state.with_label_values(&[name]),
                opened: metrics.breaker_opened.with_label_values(&[name]),
            }),
        }
    }

    /// Its state now.
    pub fn state(&self) -> BreakerState {
        *self.inner.state.borrow()
    }

    /// Whether work passes.
    pub fn is_closed(&self) -> bool {
        self.state() == BreakerState::Closed
    }

    /// What it guards failed because it is away.
    pub fn failed(&self) {
        let mut course = self.inner.course.lock();
        course.failures = course.failures.saturating_add(1);
        let open = match self.state() {
            BreakerState::Closed => course.failures >= FAILURES,
            BreakerState::HalfOpen => true,
            BreakerState::Open => false,
        };
        if open {
            if self.is_closed() {
                if course.closed_since.elapsed() > CALM {
                    course.backoff.reset();
                }
                self.inner.opened.inc();
                tracing::error!(breaker = self.inner.name, "circuit breaker opens");
            }
            course.probe_at = Instant::now() + course.backoff.next_pause();
            self.enter(BreakerState::Open);
        }
    }

    /// What it guards worked.
    pub fn succeeded(&self) {
        // The usual case costs one look.
        if self.is_closed() && self.inner.course.lock().failures == 0 {
            return;
        }
        let mut course = self.inner.course.lock();
        course.failures = 0;
        if !self.is_closed() {
            course.closed_since = Instant::now();
            tracing::info!(breaker = self.inner.name, "circuit breaker closes");
            self.enter(BreakerState::Closed);
        }
    }

    fn enter(&self, state: BreakerState) {
        self.inner.gauge.set(state.number());
        self.inner.state.send_replace(state);
    }

    /// When a caller may usefully come back.
    pub fn retry_after(&self) -> Duration {
        let course = self.inner.course.lock();
        course.probe_at.saturating_duration_since(Instant::now())
    }

    /// Waits until work passes.
    pub async fn closed(&self) {
        let mut states = self.inner.state.subscribe();
        // The sender lives in `self`, so waiting cannot fail.
        let _ = states
            .wait_for(|state| *state == BreakerState::Closed)
            .await;
    }

    /// Waits until it has not been closed for this long on end.
    pub async fn away_for(&self, limit: Duration) {
        let mut states = self.inner.state.subscribe();
        loop {
            let _ = states
                .wait_for(|state| *state != BreakerState::Closed)
                .await;
            if tokio::time::timeout(limit, self.closed()).await.is_err() {
                return;
            }
        }
    }

    /// Probes it whenever it is open. Never ends.
    async fn probe_with(&self, probe: &Probe) {
        loop {
            let mut states = self.inner.state.subscribe();
            let _ = states.wait_for(|state| *state == BreakerState::Open).await;
            tokio::time::sleep(self.retry_after()).await;
            {
                let _course = self.inner.course.lock();
                if self.state() != BreakerState::Open {
                    // Work that was still under way has closed it meanwhile.
                    continue;
                }
                self.enter(BreakerState::HalfOpen);
            }
            match probe().await {
                Ok(()) => self.succeeded(),
                Err(error) => {
                    tracing::warn!(breaker = self.inner.name, error, "still away");
                    self.failed();
                }
            }
        }
    }
}

/// Finds out whether what a breaker guards is there again, or why not.
pub type Probe = dyn Fn() -> BoxFuture<'static, Result<(), String>> + Send + Sync;

/// The actor that closes a breaker again.
pub struct BreakerProbe {
    breaker: Breaker,
    probe: Arc<Probe>,
}

impl BreakerProbe {
    /// Probes `breaker` with `probe` while it is open.
    pub fn new(breaker: Breaker, probe: Arc<Probe>) -> Self {
        Self { breaker, probe }
    }
}

impl Actor for BreakerProbe {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        let (breaker, probe) = (self.breaker.clone(), Arc::clone(&self.probe));
        ctx.spawn(async move { breaker.probe_with(&*probe).await }.into_actor(self));
    }
}

impl Supervised for BreakerProbe {
    fn restarting(&mut self, _: &mut Self::Context) {
        // A probe that panicked found nothing out.
        if self.breaker.state() == BreakerState::HalfOpen {
            self.breaker.failed();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

    fn breaker() -> Breaker {
        Breaker::new("store", &Metrics::new().unwrap())
    }

    #[test]
    fn it_opens_at_failures_in_a_row_only() {
        let breaker = breaker();
        breaker.failed();
        breaker.succeeded();
        breaker.failed();
        assert!(breaker.is_closed());
        breaker.failed();
        assert_eq!(breaker.state(), BreakerState::Open);
        assert!(breaker.retry_after() <= PAUSE.0);
        breaker.succeeded();
        assert!(breaker.is_closed());
    }

    #[tokio::test(start_paused = true)]
    async fn the_probe_closes_it_when_things_are_back() {
        let breaker = breaker();
        let back = Arc::new(AtomicBool::new(false));
        let probes = Arc::new(AtomicU32::new(0));
        let probe: Arc<Probe> = {
            let (back, probes) = (Arc::clone(&back), Arc::clone(&probes));
            Arc::new(move || {
                let probe = probes.fetch_add(1, Ordering::SeqCst);
                back.store(probe >= 2, Ordering::SeqCst);
                let back = back.load(Ordering::SeqCst);
                Box::pin(async move { back.then_some(()).ok_or_else(|| "away".to_owned()) })
            })
        };
        breaker.failed();
        breaker.failed();
        tokio::select! {
            () = breaker.probe_with(&*probe) => {}
            () = breaker.closed() => {}
        }
        assert_eq!(probes.load(Ordering::SeqCst), 3);
    }

    #[tokio::test(start_paused = true)]
    async fn a_long_absence_is_noticed_and_a_short_one_is_not() {
        let breaker = breaker();
        breaker.failed();
        breaker.failed();
        let minute = Duration::from_secs(60);
        let noticed = tokio::time::timeout(minute / 2, breaker.away_for(minute)).await;
        assert!(noticed.is_err());
        breaker.away_for(minute).await;
        breaker.succeeded();
        assert!(
            tokio::time::timeout(minute * 2, breaker.away_for(minute))
                .await
                .is_err()
        );
    }
}

//! Circuit breakers for the store and the broker.
//!
//! A *closed* breaker lets work through. Consecutive failures *open* it: work pauses or is refused at
//! once instead of running into one timeout after another. After a growing pause the breaker is *half
//! open*: a probe, not the users' work, finds out whether it may close.

use crate::metrics::Metrics;
use crate::supervision::Backoff;
use actix::{Actor, AsyncContext, Context, Supervised, WrapFuture};
use futures::future::BoxFuture;
use parking_lot::Mutex;
use prometheus::{IntCounter, IntGauge};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::watch;

/// Consecutive failures that open a breaker. A single one may be a dead connection in a pool.
const FAILURES: u32 = 2;
/// Shortest and longest pause before a probe.
const PAUSE: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(10));
/// Time closed after which the pauses start again at the shortest.
const CALM: Duration = Duration::from_secs(30);

/// State of a breaker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BreakerState {
    Closed,
    /// A probe is running.
    HalfOpen,
    /// Work is paused or refused.
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

struct BreakerTrack {
    failures: u32,
    backoff: Backoff,
    probe_at: Instant,
    closed_since: Instant,
}

struct BreakerInner {
    name: &'static str,
    state: watch::Sender<BreakerState>,
    course: Mutex<BreakerTrack>,
    gauge: IntGauge,
    opened: IntCounter,
}

/// A circuit breaker; clones share its state.
#[derive(Clone)]
pub struct Breaker {
    inner: Arc<BreakerInner>,
}

impl Breaker {
    pub fn new(name: &'static str, metrics: &Metrics) -> Self {
        let now = Instant::now();
        Self {
            inner: Arc::new(BreakerInner {
                name,
                state: watch::Sender::new(BreakerState::Closed),
                course: Mutex::new(BreakerTrack {
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

    pub fn state(&self) -> BreakerState {
        *self.inner.state.borrow()
    }

    pub fn is_closed(&self) -> bool {
        self.state() == BreakerState::Closed
    }

    /// Records a failure caused by an outage.
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

    pub fn succeeded(&self) {
        // The usual case only reads the state.
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

    /// Time until the next probe, for `Retry-After`.
    pub fn retry_after(&self) -> Duration {
        let course = self.inner.course.lock();
        course.probe_at.saturating_duration_since(Instant::now())
    }

    /// Waits until the breaker is closed.
    pub async fn closed(&self) {
        let mut states = self.inner.state.subscribe();
        // The sender lives in `self`, so waiting cannot fail.
        let _ = states
            .wait_for(|state| *state == BreakerState::Closed)
            .await;
    }

    /// Waits until the breaker has not been closed for `limit` without interruption.
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

    /// Probes whenever the breaker is open. Never returns.
    async fn probe_with(&self, probe: &Probe) {
        loop {
            let mut states = self.inner.state.subscribe();
            let _ = states.wait_for(|state| *state == BreakerState::Open).await;
            tokio::time::sleep(self.retry_after()).await;
            {
                let _course = self.inner.course.lock();
                if self.state() != BreakerState::Open {
                    // Work that was still in flight has closed it meanwhile.
                    continue;
                }
                self.enter(BreakerState::HalfOpen);
            }
            match probe().await {
                Ok(()) => self.succeeded(),
                Err(error) => {
                    tracing::warn!(breaker = self.inner.name, error, "probe failed");
                    self.failed();
                }
            }
        }
    }
}

/// Checks whether the guarded service is available again; an error says why not.
pub type Probe = dyn Fn() -> BoxFuture<'static, Result<(), String>> + Send + Sync;

/// `BreakerProbe`: probes a breaker's service while the breaker is open.
pub struct BreakerProbe {
    breaker: Breaker,
    probe: Arc<Probe>,
}

impl BreakerProbe {
    /// An actor that runs `probe` while `breaker` is open.
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
        // A probe that panicked has no result.
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
    fn consecutive_failures_open_it() {
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
    async fn a_successful_probe_closes_it() {
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
    async fn away_for_completes_only_after_the_whole_limit() {
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

//! `Leader`: keeps a lease for this process, so that what only one process may do is done by one.
//!
//! It tries until the lease is free, renews it three times in its life, and gives it back when the
//! process drains, so that another one goes on at once. What works under the lease has a
//! [`Leadership`], and hands the lease to each of its writes, since only the store knows whether it
//! is held still: a process that was paused finds out too late.

use crate::metrics::Metrics;
use crate::store::LeaseStore;
use crate::store::leases::Lease;
use crate::supervision::{Backoff, Lifecycle, Phase};
use actix::{Actor, AsyncContext, Context, Supervised, WrapFuture};
use parking_lot::Mutex;
use prometheus::IntGauge;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::watch;
use tokio::time::timeout;

/// How often to ask for a lease that another process has: one that is given back is not left lying.
const ASK: Duration = Duration::from_secs(5);
/// How long giving the lease back may take; what does not answer by then lets it run out.
const RELEASE: Duration = Duration::from_secs(2);

/// What a leader is wired to.
#[derive(Clone)]
pub struct LeaderParams {
    /// Name of the lease.
    pub name: String,
    /// How long it lasts when it is not renewed.
    pub ttl: Duration,
    /// Who gives it out.
    pub store: Arc<dyn LeaseStore>,
    /// When to give it back.
    pub lifecycle: Lifecycle,
    pub metrics: Arc<Metrics>,
}

pub struct Leader {
    params: LeaderParams,
    holder: String,
    lease: Arc<watch::Sender<Option<Lease>>>,
    term: Arc<Term>,
}

/// Whether this process leads, and by which lease.
#[derive(Clone)]
pub struct Leadership {
    lease: watch::Receiver<Option<Lease>>,
    term: Arc<Term>,
}

/// What the leader and those that work under its lease tell each other.
struct Term {
    /// When the lease in force ends, unless it is renewed.
    ends: Mutex<Instant>,
    /// Work that the lease is not given back under.
    at_work: watch::Sender<usize>,
}

/// Has the lease kept, while the process drains, until dropped.
pub struct AtWork {
    term: Arc<Term>,
}

impl Drop for AtWork {
    fn drop(&mut self) {
        self.term
            .at_work
            .send_modify(|works| *works = works.saturating_sub(1));
    }
}

impl Leadership {
    /// Whether the lease that was last in force has not run out. Its end comes no later here than in the store.
    pub fn is_current(&self) -> bool {
        Instant::now() < *self.term.ends.lock()
    }

    /// Has the lease kept while the process drains, until what this returns is dropped.
    pub fn at_work(&self) -> AtWork {
        self.term.at_work.send_modify(|works| *works += 1);
        AtWork {
            term: Arc::clone(&self.term),
        }
    }

    /// Waits until this process leads. Never ends if the leader is gone for good.
    pub async fn lease(&mut self) -> Lease {
        loop {
            let Ok(lease) = self
                .lease
                .wait_for(Option::is_some)
                .await
                .map(|l| l.clone())
            else {
                return std::future::pending().await;
            };
            if let Some(lease) = lease {
                return lease;
            }
        }
    }

    /// Waits until this lease is not the one in force any more.
    pub async fn lost(&mut self, lease: &Lease) {
        let other = |current: &Option<Lease>| current.as_ref() != Some(lease);
        // An error means that the leader is gone, and the lease with it.
        let _ = self.lease.wait_for(other).await;
    }
}

impl Leader {
    /// A leader that does not lead yet, and where to see whether it does.
    pub fn new(params: LeaderParams) -> (Self, Leadership) {
        let (lease, receiver) = watch::channel(None);
        let term = Arc::new(Term {
            ends: Mutex::new(Instant::now()),
            at_work: watch::Sender::new(0),
        });
        let leader = Self {
            params,
            holder: holder(),
            lease: Arc::new(lease),
            term: Arc::clone(&term),
        };
        let lease = receiver;
        (leader, Leadership { lease, term })
    }
}

/// Tells this process from every other, also from one with the same number in another container.
fn holder() -> String {
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let random: u32 = rand::random();
    format!("{}/{}/{random:08x}", host.trim(), std::process::id())
}

impl Actor for Leader {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        let reign = Reign {
            params: self.params.clone(),
            holder: self.holder.clone(),
            lease: Arc::clone(&self.lease),
            term: Arc::clone(&self.term),
        };
        ctx.spawn(async move { reign.run().await }.into_actor(self));
    }
}

// A restart drops the tenure, which ends it; the store gives its own holder a new lease at once.
impl Supervised for Leader {}

struct Reign {
    params: LeaderParams,
    holder: String,
    lease: Arc<watch::Sender<Option<Lease>>>,
    term: Arc<Term>,
}

/// While this lives the process leads.
struct Tenure<'a> {
    reign: &'a Reign,
    gauge: IntGauge,
}

impl Drop for Tenure<'_> {
    fn drop(&mut self) {
        self.gauge.set(0);
        self.reign.lease.send_replace(None);
    }
}

impl Reign {
    async fn run(&self) {
        let name = self.params.name.as_str();
        let gauge = self.params.metrics.lease_held.with_label_values(&[name]);
        gauge.set(0);
        let mut backoff = Backoff::new(Duration::from_millis(200), self.params.ttl);
        loop {
            let asked = Instant::now();
            match self.params.lifecycle.unless_draining(self.acquire()).await {
                None => return,
                Some(Ok(Some(lease))) => {
                    backoff.reset();
                    tracing::info!(
                        lease = name,
                        token = lease.token,
                        holder = self.holder,
                        "leads"
                    );
                    if self.lead(lease, asked, gauge.clone()).await == End::Draining {
                        return;
                    }
                }
                Some(Ok(None)) => {
                    backoff.reset();
                    if self.pause(ASK.min(self.params.ttl / 3)).await == End::Draining {
                        return;
                    }
                }
                Some(Err(error)) => {
                    tracing::warn!(lease = name, %error, "cannot ask for the lease");
                    if self.pause(backoff.next_pause()).await == End::Draining {
                        return;
                    }
                }
            }
        }
    }

    async fn acquire(&self) -> Result<Option<Lease>, crate::store::StoreError> {
        let params = &self.params;
        params
            .store
            .acquire(&params.name, &self.holder, params.ttl)
            .await
    }

    /// Leads until the lease is lost or the process drains.
    async fn lead(&self, lease: Lease, asked: Instant, gauge: IntGauge) -> End {
        let params = &self.params;
        // The process does not end before the lease is given back.
        let _hold = params.lifecycle.hold();
        let tenure = Tenure { reign: self, gauge };
        tenure.gauge.set(1);
        *self.term.ends.lock() = asked + params.ttl;
        self.lease.send_replace(Some(lease.clone()));
        let ended = tokio::select! {
            reason = self.keep(&lease, asked) => Some(reason),
            () = self.is_drained() => None,
        };
        drop(tenure);
        if let Some(reason) = ended {
            tracing::warn!(
                lease = params.name,
                token = lease.token,
                reason,
                "lease lost"
            );
            return End::Lost;
        }
        match timeout(RELEASE, params.store.release(&lease)).await {
            Ok(Ok(())) => tracing::info!(lease = params.name, "lease given back"),
            Ok(Err(error)) => {
                tracing::warn!(lease = params.name, %error, "lease not given back; it runs out");
            }
            Err(_) => tracing::warn!(lease = params.name, "lease not given back; it runs out"),
        }
        End::Draining
    }

    /// Waits until the process drains and what works under the lease has ended.
    async fn is_drained(&self) {
        self.params.lifecycle.reached(Phase::Draining).await;
        let mut at_work = self.term.at_work.subscribe();
        // The sender lives in `self`, so waiting cannot fail.
        let _ = at_work.wait_for(|works| *works == 0).await;
    }

    /// Renews the lease for as long as that works, and says why it ends. Its end is counted from
    /// before it was asked for, and so comes no later here than in the store.
    async fn keep(&self, lease: &Lease, asked: Instant) -> &'static str {
        let params = &self.params;
        let mut ends = asked + params.ttl;
        let mut pause = params.ttl / 3;
        loop {
            tokio::time::sleep(pause).await;
            let asked = Instant::now();
            let left = ends.saturating_duration_since(asked).max(params.ttl / 10);
            match timeout(left, params.store.renew(lease, params.ttl)).await {
                Ok(Ok(true)) => {
                    ends = asked + params.ttl;
                    *self.term.ends.lock() = ends;
                    pause = params.ttl / 3;
                }
                Ok(Ok(false)) => return "another process has the lease",
                Ok(Err(error)) if Instant::now() < ends => {
                    tracing::warn!(lease = params.name, %error, "lease not renewed, trying again");
                    pause = params.ttl / 10;
                }
                Ok(Err(_)) | Err(_) => return "it could not be renewed in time",
            }
        }
    }

    async fn pause(&self, pause: Duration) -> End {
        match self
            .params
            .lifecycle
            .unless_draining(tokio::time::sleep(pause))
            .await
        {
            Some(()) => End::Lost,
            None => End::Draining,
        }
    }
}

/// Why the process does not lead.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    Lost,
    Draining,
}

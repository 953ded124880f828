//! `Retention`: drops events that are older than `store.retention`, and outcomes of runs that are older than
//! `store.keep_runs`, each hour, in the one process that has the lease.
//!
//! A drop, and each slice of deletions, is one transaction that checks the lease. So a round may
//! end anywhere, and the next one, here or in another process, goes on from there.

use super::leader::Leadership;
use crate::metrics::Metrics;
use crate::store::leases::{Fenced, Lease};
use crate::store::{ErrorKind, RetentionStore, StoreError};
use crate::supervision::{Backoff, Lifecycle, failpoint};
use actix::{Actor, AsyncContext, Context, Supervised, WrapFuture};
use chrono::NaiveDate;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Name of the lease.
pub const LEASE: &str = "retention";

/// From the end of one round to the next.
const EVERY: Duration = Duration::from_secs(3_600);
/// First and longest pause after an incomplete round.
const AGAIN: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(300));
/// Rows in one slice of deletions.
const SLICE: u32 = 2_000;
/// Shortest pause between two slices. They pause for as long as they work, so that events have at
/// least half of the store.
const BREATH: Duration = Duration::from_millis(20);

/// What the retention is wired to.
#[derive(Clone)]
pub struct RetentionParams {
    /// Whether this process is the one.
    pub leadership: Leadership,
    pub store: Arc<dyn RetentionStore>,
    /// How many days to keep; all if absent.
    pub keep: Option<u32>,
    /// How many days longer for followers that have not read them.
    pub hold: u32,
    /// How many days to keep outcomes of runs; all if absent.
    pub keep_runs: Option<u32>,
    pub lifecycle: Lifecycle,
    pub metrics: Arc<Metrics>,
}

pub struct Retention {
    params: RetentionParams,
}

impl Retention {
    /// A retention that begins when this process leads.
    pub fn new(params: RetentionParams) -> Self {
        Self { params }
    }
}

impl Actor for Retention {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        let params = self.params.clone();
        ctx.spawn(
            async move {
                let lifecycle = params.lifecycle.clone();
                lifecycle.unless_draining(params.run()).await;
            }
            .into_actor(self),
        );
    }
}

// A restart begins with a new round.
impl Supervised for Retention {}

impl RetentionParams {
    /// Round after round, whenever this process leads. Never ends.
    async fn run(mut self) {
        let mut backoff = Backoff::new(AGAIN.0, AGAIN.1);
        loop {
            let lease = self.leadership.lease().await;
            let pause = match self.round(&lease).await {
                Ok(Fenced::Done(())) => {
                    backoff.reset();
                    EVERY
                }
                Ok(Fenced::Lost) => {
                    tracing::warn!(
                        token = lease.token,
                        "retention stops: the lease is another's"
                    );
                    self.metrics.retention_held.set(0);
                    // The leader finds it out with its next renewal.
                    self.leadership.lost(&lease).await;
                    continue;
                }
                Err(errors) => {
                    self.metrics.retention_failures.inc();
                    let pause = backoff.next_pause();
                    for error in errors {
                        tracing::warn!(
                            kind = error.kind().as_str(),
                            %error,
                            again_in_ms = pause.as_millis() as u64,
                            "retention incomplete"
                        );
                    }
                    pause
                }
            };
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = self.leadership.lost(&lease) => self.metrics.retention_held.set(0),
            }
        }
    }

    /// One round. What fails in one part, or for one day, does not keep the others from being done;
    /// the errors are those of all parts.
    async fn round(&self, lease: &Lease) -> Result<Fenced<()>, Vec<StoreError>> {
        let mut errors = Vec::new();
        errors.extend(self.store.prepare_days().await.err());
        if self.drop_days(lease, &mut errors).await == Fenced::Lost {
            return Ok(Fenced::Lost);
        }
        match self.trim(lease).await {
            Ok(Fenced::Lost) => return Ok(Fenced::Lost),
            Ok(Fenced::Done(())) => {}
            Err(error) => errors.push(error),
        }
        match self.expire_runs(lease).await {
            Ok(Fenced::Lost) => return Ok(Fenced::Lost),
            Ok(Fenced::Done(())) => {}
            Err(error) => errors.push(error),
        }
        match errors.is_empty() {
            true => Ok(Fenced::Done(())),
            false => Err(errors),
        }
    }

    async fn drop_days(&self, lease: &Lease, errors: &mut Vec<StoreError>) -> Fenced<()> {
        let Some(keep) = self.keep else {
            return Fenced::Done(());
        };
        let due = self.store.due_days(keep).await;
        let due = due.unwrap_or_else(|error| {
            errors.push(error);
            Vec::new()
        });
        let beyond = self.beyond_hold(keep).await;
        let beyond = beyond.unwrap_or_else(|error| {
            errors.push(error);
            Vec::new()
        });
        let mut held = 0;
        for day in due {
            let behind = match self.store.followers_behind(day).await {
                Ok(behind) => behind,
                Err(error) => {
                    errors.push(error);
                    break;
                }
            };
            if !behind.followers.is_empty() {
                let followers = behind.followers.join(", ");
                if !beyond.contains(&day) {
                    held += 1;
                    tracing::warn!(%day, followers, "day kept: followers have not read it");
                    continue;
                }
                tracing::error!(%day, followers, "day goes unread after followers.hold_days");
            }
            match self.store.drop_day(lease, day, &behind).await {
                Ok(Fenced::Lost) => return Fenced::Lost,
                Ok(Fenced::Done(())) => {
                    self.metrics.retention_partitions_dropped.inc();
                    tracing::info!(%day, "day of the event log dropped");
                    failpoint::hit("retention.dropped");
                }
                Err(error) => {
                    // A view on this day alone, for example. What holds the log itself holds all
                    // days, and inserts wait behind each attempt.
                    let of_this_day = error.kind() == ErrorKind::Operator;
                    errors.push(error);
                    if !of_this_day {
                        break;
                    }
                }
            }
        }
        self.metrics.retention_held.set(held);
        Fenced::Done(())
    }

    /// The days for which followers have been waited for long enough.
    async fn beyond_hold(&self, keep: u32) -> Result<Vec<NaiveDate>, StoreError> {
        self.store.due_days(keep.saturating_add(self.hold)).await
    }

    async fn trim(&self, lease: &Lease) -> Result<Fenced<()>, StoreError> {
        let Some(keep) = self.keep else {
            return Ok(Fenced::Done(()));
        };
        let held = keep.saturating_add(self.hold);
        for part in [
            Part::Events {
                keep,
                unread: false,
            },
            Part::Events {
                keep: held,
                unread: true,
            },
            Part::Headers { keep },
        ] {
            let (rows, done) = self.trim_part(lease, part).await?;
            if rows > 0 && !matches!(part, Part::Headers { .. }) {
                tracing::info!(rows, "old events without a day of their own deleted");
            }
            if done == Fenced::Lost {
                return Ok(Fenced::Lost);
            }
        }
        Ok(Fenced::Done(()))
    }

    async fn expire_runs(&self, lease: &Lease) -> Result<Fenced<()>, StoreError> {
        let mut runs = 0;
        loop {
            let began = Instant::now();
            let Fenced::Done(expired) = self.store.expire_runs(lease, self.keep_runs).await? else {
                return Ok(Fenced::Lost);
            };
            runs += expired.deleted;
            if !expired.more {
                if runs > 0 {
                    tracing::info!(runs, "old outcomes of reactions deleted");
                }
                return Ok(Fenced::Done(()));
            }
            tokio::time::sleep(began.elapsed().max(BREATH)).await;
        }
    }

    /// Deletes slice by slice; how many rows that were.
    async fn trim_part(&self, lease: &Lease, part: Part) -> Result<(u64, Fenced<()>), StoreError> {
        let mut rows = 0;
        // From the front each time: a batch that commits late has lower ids than what was deleted.
        let mut after = 0;
        loop {
            let began = Instant::now();
            let slice = match part {
                Part::Events { keep, unread } => {
                    self.store.trim(lease, keep, unread, after, SLICE).await?
                }
                Part::Headers { keep } => {
                    self.store.trim_headers(lease, keep, after, SLICE).await?
                }
            };
            let Fenced::Done(slice) = slice else {
                return Ok((rows, Fenced::Lost));
            };
            rows += slice.deleted;
            if matches!(part, Part::Events { .. }) {
                self.metrics.retention_rows_deleted.inc_by(slice.deleted);
            }
            failpoint::hit("retention.slice");
            let Some(next) = slice.next else {
                return Ok((rows, Fenced::Done(())));
            };
            after = next;
            tokio::time::sleep(began.elapsed().max(BREATH)).await;
        }
    }
}

/// What is deleted slice by slice.
#[derive(Clone, Copy)]
enum Part {
    Events { keep: u32, unread: bool },
    Headers { keep: u32 },
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::maintenance::leader;
    use crate::maintenance::leader::Leader;
    use crate::store::LeaseStore;
    use crate::store::retention::{ExpiredRuns, Slice, Unread};
    use async_trait::async_trait;

    /// Every part of it fails.
    struct Broken;

    fn broken<T>(part: &str) -> Result<T, StoreError> {
        Err(StoreError::new(ErrorKind::Transient, part))
    }

    #[async_trait]
    impl RetentionStore for Broken {
        async fn prepare_days(&self) -> Result<(), StoreError> {
            broken("prepare")
        }

        async fn due_days(&self, _keep: u32) -> Result<Vec<NaiveDate>, StoreError> {
            Ok([1, 2]
                .map(|day| NaiveDate::MIN + chrono::Days::new(day))
                .to_vec())
        }

        async fn followers_behind(&self, _day: NaiveDate) -> Result<Unread, StoreError> {
            Ok(Unread::default())
        }

        async fn drop_day(
            &self,
            _lease: &Lease,
            _day: NaiveDate,
            _behind: &Unread,
        ) -> Result<Fenced<()>, StoreError> {
            Err(StoreError::new(ErrorKind::Operator, "drop"))
        }

        async fn trim(
            &self,
            _lease: &Lease,
            _keep: u32,
            _unread: bool,
            _after: i64,
            _limit: u32,
        ) -> Result<Fenced<Slice>, StoreError> {
            broken("trim")
        }

        async fn trim_headers(
            &self,
            _lease: &Lease,
            _keep: u32,
            _after: i64,
            _limit: u32,
        ) -> Result<Fenced<Slice>, StoreError> {
            broken("trim headers")
        }

        async fn expire_runs(
            &self,
            _lease: &Lease,
            _keep: Option<u32>,
        ) -> Result<Fenced<ExpiredRuns>, StoreError> {
            broken("expire runs")
        }
    }

    #[async_trait]
    impl LeaseStore for Broken {
        async fn acquire(
            &self,
            _name: &str,
            _holder: &str,
            _ttl: Duration,
        ) -> Result<Option<Lease>, StoreError> {
            broken("acquire")
        }

        async fn renew(&self, _lease: &Lease, _ttl: Duration) -> Result<bool, StoreError> {
            broken("renew")
        }

        async fn release(&self, _lease: &Lease) -> Result<(), StoreError> {
            broken("release")
        }

        async fn holder(&self, _name: &str) -> Result<Option<String>, StoreError> {
            broken("holder")
        }
    }

    #[tokio::test]
    async fn a_round_tries_every_part_and_day_and_tells_every_failure() {
        let metrics = Arc::new(Metrics::new().unwrap());
        let (_leader, leadership) = Leader::new(leader::LeaderParams {
            name: LEASE.to_owned(),
            ttl: Duration::from_secs(15),
            store: Arc::new(Broken),
            lifecycle: Lifecycle::default(),
            metrics: Arc::clone(&metrics),
        });
        let params = RetentionParams {
            leadership,
            store: Arc::new(Broken),
            keep: Some(10),
            hold: 30,
            keep_runs: Some(30),
            lifecycle: Lifecycle::default(),
            metrics,
        };
        let lease = Lease {
            name: LEASE.to_owned(),
            token: 1,
        };
        let errors = params.round(&lease).await.unwrap_err();
        let errors: Vec<String> = errors.iter().map(ToString::to_string).collect();
        assert_eq!(errors, ["prepare", "drop", "drop", "trim", "expire runs"]);
    }
}

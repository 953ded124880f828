//! `Scheduler`: emits the event of each schedule at each of its due times.

use super::emitter::Emitter;
use super::schedule::Schedule;
use crate::supervision::{Backoff, Lifecycle, failpoint};
use actix::{Actor, AsyncContext, Context, Supervised, WrapFuture};
use chrono::{DateTime, Utc};
use futures::future::join_all;
use parking_lot::Mutex;
use std::sync::Arc;
use std::time::Duration;

/// First and longest pause before an event that is not durable is emitted again.
const AGAIN: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(5));
/// Longest sleep: the clock may be set meanwhile.
const LOOK: Duration = Duration::from_secs(10);

/// What the scheduler is wired to.
pub struct SchedulerParams {
    pub schedules: Vec<Schedule>,
    pub emitter: Emitter,
    pub lifecycle: Lifecycle,
}

pub struct Scheduler {
    /// Kept over a restart, so that it leaves no due time out.
    running: Arc<Vec<RunningSchedule>>,
    lifecycle: Lifecycle,
}

struct RunningSchedule {
    schedule: Schedule,
    emitter: Emitter,
    /// The last due time that was emitted.
    last: Mutex<Option<DateTime<Utc>>>,
}

impl Scheduler {
    /// A scheduler that has emitted nothing yet.
    pub fn new(params: SchedulerParams) -> Self {
        let emitter = params.emitter;
        let running = params
            .schedules
            .into_iter()
            .map(|schedule| RunningSchedule {
                schedule,
                emitter: emitter.clone(),
                last: Mutex::new(None),
            });
        Self {
            running: Arc::new(running.collect()),
            lifecycle: params.lifecycle,
        }
    }
}

impl Actor for Scheduler {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        let (running, lifecycle) = (Arc::clone(&self.running), self.lifecycle.clone());
        ctx.spawn(
            async move {
                let all = join_all(running.iter().map(RunningSchedule::run));
                lifecycle.unless_draining(all).await;
            }
            .into_actor(self),
        );
    }
}

impl Supervised for Scheduler {}

impl RunningSchedule {
    /// Due time after due time. Ends only when there is none left.
    async fn run(&self) {
        let name = &*self.schedule.name;
        loop {
            let last = *self.last.lock();
            let Some(due) = self.schedule.next_due(last, Utc::now()) else {
                tracing::error!(schedule = name, "schedule ends: it is never due again");
                return;
            };
            sleep_until(due).await;
            failpoint::hit("scheduler.emit");
            self.emit(due).await;
            *self.last.lock() = Some(due);
        }
    }

    /// Emits the event of a due time, again and again until it is durable.
    async fn emit(&self, due: DateTime<Utc>) {
        let name = &*self.schedule.name;
        let mut backoff = Backoff::new(AGAIN.0, AGAIN.1);
        let mut waits = false;
        while let Err(error) = self.emitter.emit(self.schedule.event(due)).await {
            if !waits {
                tracing::warn!(schedule = name, %due, error, "schedule waits: its event is not durable");
            }
            waits = true;
            tokio::time::sleep(backoff.next_pause()).await;
        }
        match waits {
            true => tracing::info!(schedule = name, %due, "schedule goes on"),
            false => tracing::debug!(schedule = name, %due, "schedule's event emitted"),
        }
    }
}

async fn sleep_until(due: DateTime<Utc>) {
    // An error means that it has passed.
    while let Ok(left) = (due - Utc::now()).to_std()
        && !left.is_zero()
    {
        tokio::time::sleep(left.min(LOOK)).await;
    }
}

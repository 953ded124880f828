//! One measurement: a part alone, or a scenario.

mod drain;
mod grown;
mod idle;
mod loaded;
mod outage;
mod settle;

use crate::child::Child;
use crate::figures::Figures;
use crate::http::Target;
use crate::load;
use crate::load::Load;
use crate::place::Place;
use crate::plan::{Part, Plan, Scenario};
use crate::progress::Progress;
use crate::verify::Verdict;
use crate::yardsticks::{broker, store_postgres, store_sqlite};

const MB: f64 = 1024.0 * 1024.0;

#[derive(Debug)]
pub struct Measure<'a> {
    pub plan: &'a Plan,
    pub place: &'a Place,
    pub progress: &'a Progress,
}

impl Measure<'_> {
    /// Events a second of a part alone.
    ///
    /// # Errors
    /// When it cannot be measured.
    pub async fn part(&self, part: Part) -> anyhow::Result<f64> {
        let Plan {
            duration,
            event_bytes,
            ..
        } = *self.plan;
        let (name, broker_url) = (part.name(), &self.place.servers.broker);
        let queue = self.place.queues.bare();
        match part {
            Part::Handler(array) => {
                let handler = self.handler().await?;
                let bar = self.progress.timed(&name, duration);
                let mut load = self.load(&handler.target, self.connections_of(array), array);
                load.duration = self.plan.warmup;
                load::send(&load, &bar).await?;
                load.duration = duration;
                Ok(load::send(&load, &bar).await?.rate())
            }
            Part::Frames(events) => {
                let _bar = self.progress.busy(&name);
                broker::frames(broker_url, &queue, events, event_bytes, duration).await
            }
            Part::Waiting => {
                let messages = self.plan.waiting();
                let bar = self.progress.bar(&name, messages);
                broker::waiting(broker_url, &queue, messages, event_bytes, &bar).await
            }
            Part::Postgres => {
                let _bar = self.progress.busy(&name);
                let database = self.place.database()?;
                database.empty().await?;
                store_postgres::measure(database, event_bytes, duration).await
            }
            Part::Sqlite => {
                let _bar = self.progress.busy(&name);
                let file = self.place.sqlite_file(self.plan).await?;
                store_sqlite::measure(&file, event_bytes, duration).await
            }
        }
    }

    /// Figures of a scenario, and what the store had at its end.
    ///
    /// # Errors
    /// When it cannot be measured. What is wrong with the store's contents is no error here.
    pub async fn scenario(&self, scenario: Scenario) -> anyhow::Result<(Figures, Option<Verdict>)> {
        let measured = self.measured(scenario).await?;
        if scenario.uses_broker() {
            // What was left on a queue would be another scenario's surprise.
            self.place.remove_queues(self.plan).await?;
        }
        Ok(measured)
    }

    async fn measured(&self, scenario: Scenario) -> anyhow::Result<(Figures, Option<Verdict>)> {
        match scenario {
            Scenario::Drain => {
                let (figures, verdict) = self.drain().await?;
                Ok((figures, Some(verdict)))
            }
            Scenario::Outage => {
                let (figures, verdict) = self.outage().await?;
                Ok((figures, Some(verdict)))
            }
            Scenario::Idle => Ok((self.idle().await?, None)),
            Scenario::Grown => Ok((self.grown().await?, None)),
            _ => {
                let (figures, verdict) = self.loaded(scenario).await?;
                Ok((figures, Some(verdict)))
            }
        }
    }

    async fn handler(&self) -> anyhow::Result<Child> {
        let server = self.place.under_test(self.plan, Scenario::Embedded).await?;
        let arguments = [
            "bench-handler".to_owned(),
            "--workers".to_owned(),
            server.workers().to_string(),
        ];
        let handler = Child::start(&arguments, &self.place.folder).await?;
        handler.ready().await?;
        Ok(handler)
    }

    fn connections_of(&self, array: usize) -> usize {
        let scenario = match array {
            0 => Scenario::Direct,
            _ => Scenario::ArraysDirect,
        };
        self.plan.connections(scenario)
    }

    fn load(&self, target: &Target, connections: usize, array: usize) -> Load {
        Load {
            target: target.clone(),
            connections,
            threads: self.plan.threads,
            array,
            event_bytes: self.plan.event_bytes,
            rate: None,
            duration: self.plan.duration,
            requests: u64::MAX,
        }
    }

    fn requests(&self, load: &Load) -> u64 {
        let each = load.events_each() as u64;
        self.plan
            .events
            .map_or(u64::MAX, |events| events.div_ceil(each))
    }
}

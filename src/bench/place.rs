//! Where a bench works: a folder, a database and names on the broker that are its own, and go with
//! it.

use super::database::Database;
use super::plan::{Plan, Scenario};
use super::queues::{self, Queues};
use super::under_test::{Composed, Services, UnderTest};
use crate::config::Settings;
use crate::store::sqlite::{SqliteOptions, SqliteStore};
use crate::store::{EventFilter, EventStore};
use anyhow::{Context as _, bail};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use uuid::Uuid;

/// Rows read at once from SQLite.
const PAGE: usize = 10_000;

/// All of it.
#[derive(Debug)]
pub struct Place {
    /// The folder.
    pub folder: PathBuf,
    /// The database, where PostgreSQL is given.
    pub database: Option<Database>,
    /// Names on the broker.
    pub queues: Queues,
    /// The user's settings, of which the URLs count.
    pub given: Settings,
    number: AtomicU32,
}

impl Place {
    /// Makes what the plan needs.
    ///
    /// # Errors
    /// When a scenario needs a server that the settings do not name, or one cannot be reached.
    pub async fn create(plan: &Plan, given: &Settings) -> anyhow::Result<Self> {
        check(plan, given)?;
        let folder = format!("eclusa-bench-{:08x}", rand::random::<u32>());
        let mut place = Self {
            folder: plan.folder.join(folder),
            database: None,
            queues: Queues::new(),
            given: given.clone(),
            number: AtomicU32::new(0),
        };
        // Settings that a server would refuse are found before anything is made.
        for scenario in &plan.scenarios {
            let services = place.services(Some(given.store.url.clone()));
            Composed::new(plan, *scenario, &services)?;
        }
        if place.uses_broker(plan) {
            let connection = queues::connect(given).await?;
            connection.close(200, "reached".into()).await?;
        }
        // All but the one can use it.
        let only_sqlite = |scenario: &Scenario| *scenario == Scenario::Embedded;
        if !given.store.url.is_empty() && !plan.scenarios.iter().all(only_sqlite) {
            place.database = Some(Database::create(&given.store.url).await?);
        }
        if let Err(error) = std::fs::create_dir_all(&place.folder) {
            let failure = format!("cannot make the folder {}", place.folder.display());
            if let Some(database) = &place.database {
                database.remove().await?;
            }
            return Err(error).context(failure);
        }
        Ok(place)
    }

    fn uses_broker(&self, plan: &Plan) -> bool {
        let uses = plan.scenarios.iter().any(|scenario| scenario.uses_broker());
        uses && !self.given.broker.url.is_empty()
    }

    /// The database.
    ///
    /// # Errors
    /// When none is given.
    pub fn database(&self) -> anyhow::Result<&Database> {
        self.database.as_ref().context("store.url is not set")
    }

    /// A server for a scenario, with a new folder for SQLite and an empty log.
    ///
    /// # Errors
    /// The database's, or the settings'.
    pub async fn under_test(&self, plan: &Plan, scenario: Scenario) -> anyhow::Result<UnderTest> {
        self.under_test_at(plan, scenario, None).await
    }

    /// The same with another way to the database.
    ///
    /// # Errors
    /// As [`Place::under_test`].
    pub async fn under_test_at(
        &self,
        plan: &Plan,
        scenario: Scenario,
        store: Option<String>,
    ) -> anyhow::Result<UnderTest> {
        if let Some(database) = &self.database {
            database.empty().await?;
        }
        UnderTest::new(plan, scenario, &self.services(store), &self.folder)
    }

    /// Where a server stores: in this database, or the bench's own.
    fn services(&self, store: Option<String>) -> Services {
        let number = self.number.fetch_add(1, Ordering::Relaxed);
        let own = self.database.as_ref().map(|database| database.url.clone());
        let broker = &self.given.broker.url;
        Services {
            store: store.or(own).filter(|url| !url.is_empty()),
            broker: (!broker.is_empty()).then(|| (broker.clone(), self.queues.settings())),
            data: self.folder.join(format!("data-{number}")),
        }
    }

    /// A new file for a bare SQLite.
    pub fn sqlite_file(&self) -> PathBuf {
        let number = self.number.fetch_add(1, Ordering::Relaxed);
        self.folder.join(format!("bare-{number}.db"))
    }

    /// Ids of all rows that a server has stored.
    ///
    /// # Errors
    /// The store's.
    pub async fn stored(&self, server: &UnderTest) -> anyhow::Result<Vec<Uuid>> {
        if server.settings.store.url.is_empty() {
            return sqlite_ids(&server.settings.sqlite_file()).await;
        }
        self.database()?.ids().await
    }

    /// Removes everything from the broker, where one is used.
    ///
    /// # Errors
    /// What could not be removed.
    pub async fn remove_queues(&self, plan: &Plan) -> anyhow::Result<()> {
        if !self.uses_broker(plan) {
            return Ok(());
        }
        let server = Composed::new(plan, Scenario::Idle, &self.services(None))?;
        self.queues.remove(&server.settings).await
    }

    /// Removes all of it. What cannot be removed is named, and the rest is removed all the same.
    ///
    /// # Errors
    /// What could not be removed.
    pub async fn remove(&self, plan: &Plan) -> anyhow::Result<()> {
        let mut failures = Vec::new();
        if let Some(database) = &self.database
            && let Err(error) = database.remove().await
        {
            failures.push(format!("{error:#}"));
        }
        if let Err(error) = self.remove_queues(plan).await {
            failures.push(format!("{error:#}"));
        }
        if let Err(error) = std::fs::remove_dir_all(&self.folder) {
            failures.push(format!("cannot remove {}: {error}", self.folder.display()));
        }
        if failures.is_empty() {
            return Ok(());
        }
        bail!("{}", failures.join("\n"))
    }
}

/// Whether the settings name what the scenarios need.
fn check(plan: &Plan, given: &Settings) -> anyhow::Result<()> {
    for scenario in &plan.scenarios {
        let name = scenario.name();
        if scenario.needs_store() && given.store.url.is_empty() {
            bail!(
                "{name} needs PostgreSQL: set store.url or DATABASE_URL, such as --set \
                 store.url=postgres://user:password@localhost/postgres. The bench makes a database \
                 of its own there and drops it at the end"
            );
        }
        if scenario.needs_broker() && given.broker.url.is_empty() {
            bail!(
                "{name} needs RabbitMQ: set broker.url or RABBITMQ_URL, such as --set \
                 broker.url=amqp://user:password@localhost. The bench uses queues of its own there \
                 and deletes them at the end"
            );
        }
    }
    Ok(())
}

async fn sqlite_ids(file: &Path) -> anyhow::Result<Vec<Uuid>> {
    let store = SqliteStore::open(&SqliteOptions::new(file)).await?;
    let filter = EventFilter::default();
    let (mut ids, mut before) = (Vec::new(), None);
    loop {
        let page = store.list(&filter, before, PAGE).await?;
        ids.extend(page.events.iter().map(|event| event.event_id));
        before = page.next;
        if before.is_none() {
            return Ok(ids);
        }
    }
}

//! Where a bench works: a folder, a database and names on the broker that are its own, and go with
//! it.

use super::database::Database;
use super::plan::{Plan, Profile, Scenario};
use super::queues;
use super::queues::Queues;
use super::under_test::{Composed, Services, UnderTest};
use crate::program::{Program, Servers};
use crate::yardsticks::store_sqlite;
use anyhow::{Context as _, bail};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};
use uuid::Uuid;

#[derive(Debug)]
pub struct Place {
    pub folder: PathBuf,
    /// The database, where PostgreSQL is given.
    pub database: Option<Database>,
    /// Names on the broker.
    pub queues: Queues,
    /// The servers that are given.
    pub servers: Servers,
    /// The program under test.
    pub program: Program,
    number: AtomicU32,
}

impl Place {
    /// Makes what the plan needs.
    ///
    /// # Errors
    /// When a scenario needs a server that the settings do not name, or one cannot be reached.
    pub async fn create(plan: &Plan, servers: Servers, program: Program) -> anyhow::Result<Self> {
        check(plan, &servers)?;
        let folder = format!("eclusa-bench-{:08x}", rand::random::<u32>());
        let mut place = Self {
            folder: plan.folder.join(folder),
            database: None,
            queues: Queues::new(),
            servers,
            program,
            number: AtomicU32::new(0),
        };
        // Settings that a server would refuse are found before anything is made.
        for scenario in &plan.scenarios {
            let services = place.services(Some(place.servers.store.clone()));
            Composed::new(plan, *scenario, &services, program)?;
        }
        if place.uses_broker(plan) {
            let connection = queues::connect(&place.servers.broker).await?;
            connection.close(200, "reached".into()).await?;
        }
        // All but the one can use it.
        let only_sqlite = |scenario: &Scenario| *scenario == Scenario::Embedded;
        if !place.servers.store.is_empty() && !plan.scenarios.iter().all(only_sqlite) {
            place.database = Some(Database::create(&place.servers.store, program).await?);
        }
        match place.prepare(plan).await {
            Ok(()) => Ok(place),
            Err(error) => match place.remove(plan).await {
                Ok(()) => Err(error),
                Err(left) => Err(error.context(format!("something is left behind: {left:#}"))),
            },
        }
    }

    /// Makes the folder, and the tables of the database: a server does that when it starts.
    async fn prepare(&self, plan: &Plan) -> anyhow::Result<()> {
        std::fs::create_dir_all(&self.folder)
            .with_context(|| format!("cannot make the folder {}", self.folder.display()))?;
        if self.database.is_some() {
            drop(self.plain(plan, Scenario::Direct)?.start().await?);
        }
        Ok(())
    }

    /// A server with nothing but the defaults.
    fn plain(&self, plan: &Plan, scenario: Scenario) -> anyhow::Result<UnderTest> {
        let plan = Plan {
            profile: Profile::Default,
            set: Vec::new(),
            ..plan.clone()
        };
        let services = self.services(None);
        UnderTest::new(&plan, scenario, &services, &self.folder, self.program)
    }

    fn uses_broker(&self, plan: &Plan) -> bool {
        let uses = plan.scenarios.iter().any(|scenario| scenario.uses_broker());
        uses && !self.servers.broker.is_empty()
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
        let services = self.services(store);
        UnderTest::new(plan, scenario, &services, &self.folder, self.program)
    }

    /// Where a server stores: in this database, or the bench's own.
    fn services(&self, store: Option<String>) -> Services {
        let number = self.number.fetch_add(1, Ordering::Relaxed);
        let own = self.database.as_ref().map(|database| database.url.clone());
        let broker = &self.servers.broker;
        Services {
            store: store.or(own).filter(|url| !url.is_empty()),
            broker: (!broker.is_empty()).then(|| (broker.clone(), self.queues.settings())),
            data: self.folder.join(format!("data-{number}")),
        }
    }

    /// A new file for a bare SQLite, with the tables that a server makes.
    ///
    /// # Errors
    /// As [`UnderTest::start`].
    pub async fn sqlite_file(&self, plan: &Plan) -> anyhow::Result<PathBuf> {
        let server = self.plain(plan, Scenario::Embedded)?;
        drop(server.start().await?);
        Ok(server.expected.sqlite_file)
    }

    /// Ids of all rows that a server has stored.
    ///
    /// # Errors
    /// The store's.
    pub async fn stored(&self, server: &UnderTest) -> anyhow::Result<Vec<Uuid>> {
        match server.mode {
            "embedded" => store_sqlite::ids(&server.expected.sqlite_file).await,
            _ => self.database()?.ids().await,
        }
    }

    /// Removes everything from the broker, where one is used.
    ///
    /// # Errors
    /// What could not be removed.
    pub async fn remove_queues(&self, plan: &Plan) -> anyhow::Result<()> {
        if !self.uses_broker(plan) {
            return Ok(());
        }
        let services = self.services(None);
        let server = Composed::new(plan, Scenario::Idle, &services, self.program)?;
        let broker = &self.servers.broker;
        self.queues.remove(broker, &server.expected).await
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
        if self.folder.exists()
            && let Err(error) = std::fs::remove_dir_all(&self.folder)
        {
            failures.push(format!("cannot remove {}: {error}", self.folder.display()));
        }
        if failures.is_empty() {
            return Ok(());
        }
        bail!("{}", failures.join("\n"))
    }
}

/// Whether the settings name what the scenarios need.
fn check(plan: &Plan, servers: &Servers) -> anyhow::Result<()> {
    for scenario in &plan.scenarios {
        let name = scenario.name();
        if scenario.needs_store() && servers.store.is_empty() {
            bail!(
                "{name} needs PostgreSQL: set store.url or DATABASE_URL, such as --set \
                 store.url=postgres://user:password@localhost/postgres. The bench makes a database \
                 of its own there and drops it at the end"
            );
        }
        if scenario.needs_broker() && servers.broker.is_empty() {
            bail!(
                "{name} needs RabbitMQ: set broker.url or RABBITMQ_URL, such as --set \
                 broker.url=amqp://user:password@localhost. The bench uses queues of its own there \
                 and deletes them at the end"
            );
        }
    }
    Ok(())
}

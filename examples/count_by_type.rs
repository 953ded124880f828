//! Eclusa with two followers of its own: one counts the events of each type, the other those of each
//! user. Takes its settings as `eclusa` does, from `./eclusa.toml` and the environment:
//!
//! ```sh
//! ECLUSA__HTTP__PORT=3000 cargo run --example count_by_type
//! ```
//!
//! The tables `example_counts_by_type` and `example_counts_by_user` have the counts, which at every
//! moment are exactly those of the events up to the follower's position.

use async_trait::async_trait;
use diesel::connection::SimpleConnection;
use diesel::sql_types::Text;
use diesel::{Connection, SqliteConnection, sql_query};
use diesel_async::{AsyncConnection, AsyncPgConnection, SimpleAsyncConnection};
use eclusa::app::App;
use eclusa::app::signals::{ReloadSignal, StopSignals};
use eclusa::config::{Mode, Settings, Sources};
use eclusa::followers::{Followers, Projection, Subscription};
use eclusa::logging;
use eclusa::reactions::Reactions;
use eclusa::store::commit_log::LoggedEvent;
use eclusa::store::transaction::{EffectError, Transaction};
use std::collections::BTreeMap;
use std::process::ExitCode;
use std::time::Duration;

/// Counts events by one of their fields.
struct Counts {
    name: &'static str,
    table: &'static str,
    key: fn(&LoggedEvent) -> Option<&str>,
}

impl Counts {
    /// One statement for a whole chunk, which gets the counts as a JSON object.
    fn add(&self, each: &str) -> String {
        format!(
            "INSERT INTO {0} (key, events) SELECT key, CAST(value AS BIGINT) FROM {each} WHERE true \
             ON CONFLICT (key) DO UPDATE SET events = {0}.events + excluded.events",
            self.table
        )
    }
}

#[async_trait]
impl Projection for Counts {
    fn name(&self) -> &str {
        self.name
    }

    fn subscription(&self) -> Subscription {
        Subscription::all()
    }

    async fn apply(
        &self,
        transaction: &mut Transaction<'_>,
        events: &[LoggedEvent],
    ) -> Result<(), EffectError> {
        let mut counts: BTreeMap<&str, i64> = BTreeMap::new();
        for event in events {
            if let Some(key) = (self.key)(event) {
                *counts.entry(key).or_default() += 1;
            }
        }
        let counts = serde_json::to_string(&counts)
            .map_err(|error| EffectError::Refused(error.to_string()))?;
        match transaction {
            Transaction::Postgres(connection) => {
                let add = sql_query(self.add("jsonb_each_text($1::jsonb)")).bind::<Text, _>(counts);
                diesel_async::RunQueryDsl::execute(add, connection).await?;
            }
            Transaction::Sqlite(connection) => {
                let add = sql_query(self.add("json_each($1)")).bind::<Text, _>(counts);
                diesel::RunQueryDsl::execute(add, *connection)?;
            }
        }
        Ok(())
    }

    async fn reset(&self, transaction: &mut Transaction<'_>) -> Result<(), EffectError> {
        let delete = format!("DELETE FROM {}", self.table);
        match transaction {
            Transaction::Postgres(connection) => connection.batch_execute(&delete).await?,
            Transaction::Sqlite(connection) => connection.batch_execute(&delete)?,
        }
        Ok(())
    }
}

const BY_TYPE: Counts = Counts {
    name: "by-type",
    table: "example_counts_by_type",
    key: |logged| Some(&logged.event.event_type),
};

const BY_USER: Counts = Counts {
    name: "by-user",
    table: "example_counts_by_user",
    key: |logged| logged.event.user_id.as_deref(),
};

/// Creates the tables of the counts. An application has its own migrations.
async fn create_tables(settings: &Settings) -> anyhow::Result<()> {
    let tables = [BY_TYPE.table, BY_USER.table].map(|table| {
        format!(
            "CREATE TABLE IF NOT EXISTS {table} (key TEXT PRIMARY KEY, events BIGINT NOT NULL);"
        )
    });
    let tables = tables.concat();
    match settings.mode() {
        Mode::Embedded | Mode::Auto => {
            std::fs::create_dir_all(&settings.data_dir)?;
            let file = settings.sqlite_file();
            let mut connection = SqliteConnection::establish(&file.to_string_lossy())?;
            connection.batch_execute(&format!("PRAGMA busy_timeout = 5000; {tables}"))?;
        }
        Mode::Database | Mode::Full => {
            let mut connection = AsyncPgConnection::establish(&settings.store.url).await?;
            // Processes that start at once would meet at the catalog.
            let alone = "SELECT pg_advisory_xact_lock(4711);";
            let create = format!("BEGIN; {alone} {tables} COMMIT");
            connection.batch_execute(&create).await?;
        }
    }
    Ok(())
}

async fn serve() -> anyhow::Result<ExitCode> {
    let sources = Sources::from_process(None, Vec::new());
    let settings = sources.load()?;
    let log = logging::start(&settings.log)?;
    let (mut stop, reload) = (StopSignals::install()?, ReloadSignal::install()?);
    let start = async {
        // The database may be starting too.
        while let Err(error) = create_tables(&settings).await {
            eprintln!("cannot create the tables: {error:#}; trying again");
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
        let followers = Followers::new().project(BY_TYPE).project(BY_USER);
        App::build(settings, sources, log, followers, Reactions::new()).await
    };
    let app = tokio::select! {
        app = start => app?,
        () = stop.requested() => return Ok(ExitCode::SUCCESS),
    };
    println!("Listening on http://127.0.0.1:{}", app.port());
    match app.run_until_stopped(stop, reload).await {
        None => Ok(ExitCode::SUCCESS),
        Some(reason) => {
            eprintln!("{reason}");
            Ok(ExitCode::FAILURE)
        }
    }
}

fn main() -> anyhow::Result<ExitCode> {
    actix_rt::System::new().block_on(serve())
}

//! Effects of runs in the database of the log, in one transaction with the outcome.

use super::child::die;
use crate::followers::{Place, SOON};
use crate::harness::eventually;
use diesel::connection::SimpleConnection as _;
use diesel::sql_types::Text;
use diesel_async::{AsyncConnection as _, AsyncPgConnection};
use eclusa::reactions::{CompleteError, Run};
use eclusa::store::Store;
use eclusa::store::postgres::{PostgresOptions, PostgresStore};
use eclusa::store::sqlite::{SqliteOptions, SqliteStore};
use std::path::PathBuf;
use std::sync::Arc;

/// How the transaction of an effect ends.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum End {
    Commit,
    RollBack,
    /// The process dies.
    DieBeforeCommit,
    DieAfterCommit,
}

impl End {
    const ALL: [(Self, &'static str); 4] = [
        (End::Commit, "commit"),
        (End::RollBack, "roll back"),
        (End::DieBeforeCommit, "die before"),
        (End::DieAfterCommit, "die after"),
    ];

    pub fn as_str(self) -> &'static str {
        Self::ALL.iter().find(|(end, _)| *end == self).unwrap().1
    }

    pub fn parse(text: &str) -> Self {
        Self::ALL.iter().find(|(_, name)| *name == text).unwrap().0
    }
}

/// A table in the database of the log, with a row for each effect.
#[derive(Debug, Clone)]
pub enum Effects {
    Postgres(String),
    Sqlite(PathBuf),
}

#[derive(diesel::QueryableByName)]
struct EffectRow {
    #[diesel(sql_type = Text)]
    event: String,
}

impl Effects {
    pub fn of(place: &Place) -> Self {
        match (&place.url, &place.folder) {
            (Some(url), _) => Self::Postgres(url.clone()),
            (None, folder) => Self::Sqlite(folder.as_ref().unwrap().path().join("eclusa.db")),
        }
    }

    pub fn to_text(&self) -> String {
        match self {
            Self::Postgres(url) => url.clone(),
            Self::Sqlite(path) => path.display().to_string(),
        }
    }

    pub fn from_text(text: &str) -> Self {
        match text.starts_with("postgres://") {
            true => Self::Postgres(text.to_owned()),
            false => Self::Sqlite(text.into()),
        }
    }

    pub async fn store(&self) -> Arc<dyn Store> {
        match self {
            Self::Postgres(url) => Arc::new(
                PostgresStore::connect(&PostgresOptions::new(url))
                    .await
                    .unwrap(),
            ),
            Self::Sqlite(path) => {
                Arc::new(SqliteStore::open(&SqliteOptions::new(path)).await.unwrap())
            }
        }
    }

    pub async fn create(&self) {
        let create = "CREATE TABLE effects (event TEXT NOT NULL)";
        match self {
            Self::Postgres(url) => {
                let client = crate::harness::connect(url).await;
                client.batch_execute(create).await.unwrap();
            }
            Self::Sqlite(path) => open(path).batch_execute(create).unwrap(),
        }
    }

    /// The events of the effects.
    pub async fn done(&self) -> Vec<String> {
        let sql = diesel::sql_query("SELECT event FROM effects");
        let rows: Vec<EffectRow> = match self {
            Self::Postgres(url) => {
                let mut connection = AsyncPgConnection::establish(url).await.unwrap();
                let rows = diesel_async::RunQueryDsl::load(sql, &mut connection).await;
                rows.unwrap()
            }
            Self::Sqlite(path) => diesel::RunQueryDsl::load(sql, &mut open(path)).unwrap(),
        };
        rows.into_iter().map(|row| row.event).collect()
    }

    /// Adds an effect that belongs to no run.
    pub async fn note(&self, what: &str) {
        let note = format!("INSERT INTO effects VALUES ('{what}')");
        match self {
            Self::Postgres(url) => {
                let client = crate::harness::connect(url).await;
                client.batch_execute(&note).await.unwrap();
            }
            Self::Sqlite(path) => open(path).batch_execute(&note).unwrap(),
        }
    }

    /// Waits for so many effects of this name.
    pub async fn noted(&self, what: &str, count: usize) {
        eventually(SOON, &format!("{count} {what}"), async || {
            let done = self.done().await;
            (done.iter().filter(|one| *one == what).count() >= count).then_some(())
        })
        .await;
    }

    /// Has the effect of a run and completes it.
    pub async fn complete(&self, run: &Run, end: End) -> Result<(), CompleteError> {
        let effect = diesel::sql_query("INSERT INTO effects VALUES ($1)")
            .bind::<Text, _>(run.event.event_id.to_string());
        let ends = move || match end {
            End::RollBack => Err(CompleteError::Database(
                diesel::result::Error::RollbackTransaction,
            )),
            End::DieBeforeCommit => die(),
            End::Commit | End::DieAfterCommit => Ok(()),
        };
        match self {
            Self::Postgres(url) => {
                let mut connection = AsyncPgConnection::establish(url).await.unwrap();
                connection
                    .transaction::<_, CompleteError, _>(async |connection| {
                        run.complete_in(connection).await?;
                        diesel_async::RunQueryDsl::execute(effect, connection).await?;
                        ends()
                    })
                    .await?;
            }
            Self::Sqlite(path) => {
                let (run, path) = (run.clone(), path.clone());
                let done = tokio::task::spawn_blocking(move || {
                    open(&path).immediate_transaction::<_, CompleteError, _>(|connection| {
                        run.complete_in_sqlite(connection)?;
                        diesel::RunQueryDsl::execute(effect, connection)?;
                        ends()
                    })
                });
                done.await.unwrap()?;
            }
        }
        if end == End::DieAfterCommit {
            die();
        }
        Ok(())
    }
}

fn open(path: &std::path::Path) -> diesel::SqliteConnection {
    use diesel::Connection as _;
    let mut connection = diesel::SqliteConnection::establish(&path.display().to_string()).unwrap();
    connection
        .batch_execute("PRAGMA busy_timeout = 10000")
        .unwrap();
    connection
}

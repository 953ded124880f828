//! SQLite, through diesel on threads that may block.

use super::{Database, Domain, TABLES, User, domains, users};
use anyhow::Context as _;
use async_trait::async_trait;
use diesel::connection::SimpleConnection;
use diesel::prelude::*;
use diesel::result::{DatabaseErrorKind, Error};
use eclusa::reactions::{CompleteError, Run};
use eclusa::store::Store;
use eclusa::store::sqlite::{SqliteOptions, SqliteStore, migrate, record};
use parking_lot::Mutex;
use std::path::PathBuf;
use std::sync::Arc;
use uuid::Uuid;

/// One connection: SQLite has one writer at a time anyway. Eclusa has connections of its own to the file.
struct Sqlite {
    connection: Arc<Mutex<SqliteConnection>>,
}

pub async fn open(file: PathBuf) -> anyhow::Result<(Arc<dyn Store>, Arc<dyn Database>)> {
    migrate(&file)
        .await
        .with_context(|| format!("cannot use {}; set DATA_DIR", file.display()))?;
    let store = SqliteStore::open(&SqliteOptions::new(&file)).await?;
    let mut connection = SqliteConnection::establish(&file.to_string_lossy())?;
    // Writers wait for each other. A commit is on the disk when it returns.
    connection.batch_execute("PRAGMA busy_timeout = 5000; PRAGMA synchronous = FULL;")?;
    connection.batch_execute(TABLES)?;
    let connection = Arc::new(Mutex::new(connection));
    Ok((Arc::new(store), Arc::new(Sqlite { connection })))
}

impl Sqlite {
    async fn with<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut SqliteConnection) -> T + Send + 'static,
    ) -> anyhow::Result<T> {
        let connection = Arc::clone(&self.connection);
        let done = tokio::task::spawn_blocking(move || work(&mut connection.lock()));
        Ok(done.await?)
    }
}

#[async_trait]
impl Database for Sqlite {
    async fn sign_up(&self, user: &User) -> anyhow::Result<bool> {
        let (user, event) = (user.clone(), user.signed_up()?);
        let signed_up = self.with(move |connection| {
            connection.immediate_transaction(|connection| {
                record(connection, &event)?;
                diesel::insert_into(users::table)
                    .values(&user)
                    .execute(connection)
            })
        });
        match signed_up.await? {
            Ok(_) => Ok(true),
            Err(Error::DatabaseError(DatabaseErrorKind::UniqueViolation, _)) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    async fn count_domain(&self, run: &Run, domain: &str) -> anyhow::Result<()> {
        let (run, domain) = (run.clone(), domain.to_owned());
        let counted = self.with(move |connection| {
            connection.immediate_transaction::<(), CompleteError, _>(|connection| {
                run.complete_in_sqlite(connection)?;
                diesel::insert_into(domains::table)
                    .values((domains::domain.eq(&domain), domains::users.eq(1)))
                    .on_conflict(domains::domain)
                    .do_update()
                    .set(domains::users.eq(domains::users + 1))
                    .execute(connection)?;
                Ok(())
            })
        });
        Ok(counted.await??)
    }

    async fn user(&self, id: Uuid) -> anyhow::Result<Option<User>> {
        let find = move |connection: &mut SqliteConnection| {
            let user = users::table.find(id.to_string());
            user.first(connection).optional()
        };
        Ok(self.with(find).await??)
    }

    async fn domains(&self) -> anyhow::Result<Vec<Domain>> {
        let list = |connection: &mut SqliteConnection| {
            domains::table.order(domains::domain).load(connection)
        };
        Ok(self.with(list).await??)
    }
}

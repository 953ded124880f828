//! PostgreSQL, through diesel-async.

use super::{Database, Domain, TABLES, User, domains, users};
use crate::LEASE;
use anyhow::Context as _;
use async_trait::async_trait;
use diesel::prelude::*;
use diesel::result::{DatabaseErrorKind, Error};
use diesel_async::pooled_connection::AsyncDieselConnectionManager;
use diesel_async::pooled_connection::deadpool::Pool;
use diesel_async::{AsyncConnection, AsyncPgConnection, RunQueryDsl, SimpleAsyncConnection};
use eclusa::reactions::{CompleteError, Run};
use eclusa::store::Store;
use eclusa::store::postgres::{PostgresOptions, PostgresStore, migrate, record};
use std::sync::Arc;
use uuid::Uuid;

struct Postgres {
    pool: Pool<AsyncPgConnection>,
}

pub async fn open(url: &str) -> anyhow::Result<(Arc<dyn Store>, Arc<dyn Database>)> {
    let options = PostgresOptions {
        lease_ttl: LEASE,
        ..PostgresOptions::new(url)
    };
    migrate(&options)
        .await
        .context("the database of DATABASE_URL cannot be used")?;
    let store = PostgresStore::connect(&options).await?;
    let manager = AsyncDieselConnectionManager::<AsyncPgConnection>::new(url);
    let pool = Pool::builder(manager).build()?;
    // Processes that start at once would meet at the catalog.
    let create = format!("BEGIN; SELECT pg_advisory_xact_lock(4712); {TABLES} COMMIT");
    pool.get().await?.batch_execute(&create).await?;
    Ok((Arc::new(store), Arc::new(Postgres { pool })))
}

#[async_trait]
impl Database for Postgres {
    async fn sign_up(&self, user: &User) -> anyhow::Result<bool> {
        let event = user.signed_up()?;
        let mut connection = self.pool.get().await?;
        let signed_up = connection.transaction(async |connection| {
            record(connection, &event).await?;
            diesel::insert_into(users::table)
                .values(user)
                .execute(connection)
                .await
        });
        match signed_up.await {
            Ok(_) => Ok(true),
            Err(Error::DatabaseError(DatabaseErrorKind::UniqueViolation, _)) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    async fn count_domain(&self, run: &Run, domain: &str) -> anyhow::Result<()> {
        let mut connection = self.pool.get().await?;
        let counted = connection.transaction::<(), CompleteError, _>(async |connection| {
            run.complete_in(connection).await?;
            diesel::insert_into(domains::table)
                .values((domains::domain.eq(domain), domains::users.eq(1)))
                .on_conflict(domains::domain)
                .do_update()
                .set(domains::users.eq(domains::users + 1))
                .execute(connection)
                .await?;
            Ok(())
        });
        Ok(counted.await?)
    }

    async fn user(&self, id: Uuid) -> anyhow::Result<Option<User>> {
        let mut connection = self.pool.get().await?;
        let user = users::table.find(id.to_string());
        Ok(user.first(&mut connection).await.optional()?)
    }

    async fn domains(&self) -> anyhow::Result<Vec<Domain>> {
        let mut connection = self.pool.get().await?;
        let all = domains::table.order(domains::domain);
        Ok(all.load(&mut connection).await?)
    }
}

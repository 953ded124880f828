//! Leases in the table `leases`. One process has the file, but its parts take leases all the same.

use super::SqliteStore;
use super::connection::SqliteFailure;
use super::schema::leases::dsl;
use crate::store::StoreError;
use crate::store::leases::{Lease, LeaseStore};
use async_trait::async_trait;
use diesel::dsl::sql;
use diesel::prelude::*;
use diesel::sql_types::BigInt;
use std::time::Duration;

/// The time in microseconds, by SQLite.
pub(super) fn now(connection: &mut SqliteConnection) -> QueryResult<i64> {
    let now = sql::<BigInt>("CAST(unixepoch('subsec') * 1000000 AS INTEGER)");
    diesel::select(now).get_result(connection)
}

fn after(now: i64, ttl: Duration) -> i64 {
    now.saturating_add(i64::try_from(ttl.as_micros()).unwrap_or(i64::MAX))
}

/// Whether the lease is held, and it stays so until the transaction ends.
pub(super) fn is_held(connection: &mut SqliteConnection, lease: &Lease) -> QueryResult<bool> {
    let held = dsl::leases.filter(dsl::name.eq(&lease.name).and(dsl::token.eq(lease.token)));
    diesel::select(diesel::dsl::exists(held)).get_result(connection)
}

/// See [`LeaseStore::acquire`].
pub(super) fn acquire(
    connection: &mut SqliteConnection,
    name: &str,
    holder: &str,
    ttl: Duration,
) -> Result<Option<Lease>, SqliteFailure> {
    let now = now(connection)?;
    let earlier: Option<(i64, Option<String>, i64)> = dsl::leases
        .find(name)
        .select((dsl::token, dsl::holder, dsl::until))
        .first(connection)
        .optional()?;
    let token = match earlier {
        Some((_, other, until)) if until > now && other.as_deref() != Some(holder) => {
            return Ok(None);
        }
        Some((token, _, _)) => token.saturating_add(1),
        None => 1,
    };
    let held = (
        dsl::token.eq(token),
        dsl::holder.eq(Some(holder)),
        dsl::until.eq(after(now, ttl)),
    );
    diesel::insert_into(dsl::leases)
        .values((dsl::name.eq(name), held))
        .on_conflict(dsl::name)
        .do_update()
        .set(held)
        .execute(connection)?;
    Ok(Some(Lease {
        name: name.to_owned(),
        token,
    }))
}

/// See [`LeaseStore::holder`].
pub(super) fn holder(connection: &mut SqliteConnection, name: &str) -> QueryResult<Option<String>> {
    let now = now(connection)?;
    let held = dsl::leases.find(name).filter(dsl::until.gt(now));
    let holder = held.select(dsl::holder).first(connection).optional()?;
    Ok(holder.flatten())
}

/// See [`LeaseStore::renew`].
pub(super) fn renew(
    connection: &mut SqliteConnection,
    lease: &Lease,
    ttl: Duration,
) -> Result<bool, SqliteFailure> {
    let until = after(now(connection)?, ttl);
    let held = dsl::leases.filter(dsl::name.eq(&lease.name).and(dsl::token.eq(lease.token)));
    let renewed = diesel::update(held).set(dsl::until.eq(until));
    Ok(renewed.execute(connection)? == 1)
}

/// See [`LeaseStore::release`]. The token goes on, so that no write of the holder that gave it back
/// gets through.
pub(super) fn release(
    connection: &mut SqliteConnection,
    lease: &Lease,
) -> Result<(), SqliteFailure> {
    let held = dsl::leases.filter(dsl::name.eq(&lease.name).and(dsl::token.eq(lease.token)));
    diesel::update(held)
        .set((
            dsl::token.eq(dsl::token + 1),
            dsl::holder.eq(None::<String>),
            dsl::until.eq(0),
        ))
        .execute(connection)?;
    Ok(())
}

/// See [`LeaseStore::void_leases`].
pub(super) fn void(connection: &mut SqliteConnection) -> Result<(), SqliteFailure> {
    diesel::update(dsl::leases)
        .set((
            dsl::token.eq(dsl::token + 1),
            dsl::holder.eq(None::<String>),
            dsl::until.eq(0),
        ))
        .execute(connection)?;
    Ok(())
}

#[async_trait]
impl LeaseStore for SqliteStore {
    async fn acquire(
        &self,
        name: &str,
        holder: &str,
        ttl: Duration,
    ) -> Result<Option<Lease>, StoreError> {
        let (name, holder) = (name.to_owned(), holder.to_owned());
        self.writer
            .ask(1, move |c| acquire(c, &name, &holder, ttl))
            .await
    }

    async fn renew(&self, lease: &Lease, ttl: Duration) -> Result<bool, StoreError> {
        let lease = lease.clone();
        self.writer.ask(1, move |c| renew(c, &lease, ttl)).await
    }

    async fn release(&self, lease: &Lease) -> Result<(), StoreError> {
        let lease = lease.clone();
        self.writer.ask(1, move |c| release(c, &lease)).await
    }

    async fn holder(&self, name: &str) -> Result<Option<String>, StoreError> {
        let name = name.to_owned();
        self.readers
            .read(move |connection| Ok(holder(connection, &name)?))
            .await
    }

    async fn void_leases(&self) -> Result<(), StoreError> {
        self.writer.ask(1, void).await
    }
}

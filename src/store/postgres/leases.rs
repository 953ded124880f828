//! Leases in the table `leases`. Times are `clock_timestamp()`: `now()` is when the transaction
//! began, which may be long before a lock was had.

use super::PostgresStore;
use crate::event::Fence;
use crate::store::StoreError;
use crate::store::leases::{Lease, LeaseStore};
use async_trait::async_trait;
use deadpool_postgres::Transaction;
use std::time::Duration;
use tokio_postgres::types::ToSql;

/// Asked first: the insert below locks the row even if it does not get the lease.
const IS_TAKEN: &str = "\
    SELECT EXISTS (SELECT FROM leases \
                   WHERE name = $1 AND holder IS DISTINCT FROM $2 AND until > clock_timestamp())";

const ACQUIRE: &str = "\
    INSERT INTO leases AS held (name, token, holder, until) \
    VALUES ($1, 1, $2, clock_timestamp() + make_interval(secs => $3)) \
    ON CONFLICT (name) DO UPDATE \
    SET token = held.token + 1, holder = excluded.holder, \
        until = clock_timestamp() + make_interval(secs => $3) \
    WHERE held.until <= clock_timestamp() OR held.holder = excluded.holder \
    RETURNING token";

const RENEW: &str = "\
    UPDATE leases SET until = clock_timestamp() + make_interval(secs => $3) \
    WHERE name = $1 AND token = $2";

/// Increments the token, so that later writes of the former holder fail.
const RELEASE: &str = "\
    UPDATE leases SET token = token + 1, holder = NULL, until = 'epoch' \
    WHERE name = $1 AND token = $2";

const HOLDER: &str = "SELECT holder FROM leases WHERE name = $1 AND until > clock_timestamp()";

/// `FOR KEY SHARE` blocks a change of the token, which is part of a unique key, but not a renewal; see
/// the migration.
pub(super) const FENCE: &str = "SELECT FROM leases WHERE name = $1 AND token = $2 FOR KEY SHARE";

/// Whether the lease is held, and it stays so until the transaction ends.
pub(super) async fn fence(
    transaction: &Transaction<'_>,
    lease: &Lease,
) -> Result<bool, StoreError> {
    let statement = transaction.prepare_cached(FENCE).await?;
    let held = transaction
        .query_opt(&statement, &[&lease.name, &lease.token])
        .await?;
    Ok(held.is_some())
}

const IS_HELD: &str = "SELECT FROM leases WHERE name = $1 AND token = $2";

/// Whether no other holder has taken the lease.
pub(super) async fn is_held(
    client: &deadpool_postgres::Client,
    fence: &Fence,
) -> Result<bool, tokio_postgres::Error> {
    let statement = client.prepare_cached(IS_HELD).await?;
    let parameters: [&(dyn ToSql + Sync); 2] = [&fence.lease, &fence.token];
    let held = client.query_opt(&statement, &parameters).await?;
    Ok(held.is_some())
}

#[async_trait]
impl LeaseStore for PostgresStore {
    async fn acquire(
        &self,
        name: &str,
        holder: &str,
        ttl: Duration,
    ) -> Result<Option<Lease>, StoreError> {
        self.pools
            .maintain(async |client| {
                let statement = client.prepare_cached(IS_TAKEN).await?;
                if client
                    .query_one(&statement, &[&name, &holder])
                    .await?
                    .try_get(0)?
                {
                    return Ok(None);
                }
                let statement = client.prepare_cached(ACQUIRE).await?;
                let parameters: [&(dyn ToSql + Sync); 3] = [&name, &holder, &ttl.as_secs_f64()];
                let row = client.query_opt(&statement, &parameters).await?;
                row.map(|row| {
                    Ok(Lease {
                        name: name.to_owned(),
                        token: row.try_get(0)?,
                    })
                })
                .transpose()
            })
            .await
    }

    async fn renew(&self, lease: &Lease, ttl: Duration) -> Result<bool, StoreError> {
        self.pools
            .maintain(async |client| {
                let statement = client.prepare_cached(RENEW).await?;
                let parameters: [&(dyn ToSql + Sync); 3] =
                    [&lease.name, &lease.token, &ttl.as_secs_f64()];
                Ok(client.execute(&statement, &parameters).await? == 1)
            })
            .await
    }

    async fn release(&self, lease: &Lease) -> Result<(), StoreError> {
        self.pools
            .maintain(async |client| {
                let statement = client.prepare_cached(RELEASE).await?;
                let parameters: [&(dyn ToSql + Sync); 2] = [&lease.name, &lease.token];
                client.execute(&statement, &parameters).await?;
                Ok(())
            })
            .await
    }

    async fn holder(&self, name: &str) -> Result<Option<String>, StoreError> {
        self.pools
            .maintain(async |client| {
                let statement = client.prepare_cached(HOLDER).await?;
                let row = client.query_opt(&statement, &[&name]).await?;
                Ok(row.map(|row| row.try_get(0)).transpose()?.flatten())
            })
            .await
    }
}

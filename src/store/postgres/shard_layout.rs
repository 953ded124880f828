//! The tables `shard_layouts` and `shard_replicas`. Entering and replacing lock the layout's row, so
//! no replica enters a layout while it is marked as draining.

use super::PostgresStore;
use crate::event::Shards;
use crate::store::shard_layout::{LayoutEntry, REPLICA_TTL, Replica, ShardLayoutStore};
use crate::store::{ErrorKind, StoreError};
use async_trait::async_trait;
use deadpool_postgres::Transaction;
use tokio_postgres::Row;
use tokio_postgres::types::ToSql;
use uuid::Uuid;

const CREATE: &str = "\
    INSERT INTO shard_layouts (queue, shards, prefetch) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING";
const LOCK: &str =
    "SELECT shards, prefetch, draining FROM shard_layouts WHERE queue = $1 FOR UPDATE";
const OTHERS: &str = "SELECT count(*) FROM shard_replicas WHERE queue = $1 AND replica <> $2";
const LEAVE: &str = "DELETE FROM shard_replicas WHERE queue = $1 AND replica = $2";
const DRAIN: &str = "UPDATE shard_layouts SET draining = true WHERE queue = $1";
const ENTER: &str = "\
    INSERT INTO shard_replicas (queue, replica, connection, until) \
    VALUES ($1, $2, $3, clock_timestamp() + make_interval(secs => $4)) \
    ON CONFLICT (queue, replica) DO UPDATE \
    SET connection = excluded.connection, until = excluded.until";
const RENEW: &str = "\
    UPDATE shard_replicas SET until = clock_timestamp() + make_interval(secs => $3) \
    WHERE queue = $1 AND connection = $2 \
    RETURNING (SELECT count(*) FROM shard_replicas AS others WHERE others.queue = $1 \
               AND others.connection <> $2 AND others.until > clock_timestamp())";
const EXPIRED: &str =
    "SELECT connection FROM shard_replicas WHERE queue = $1 AND until <= clock_timestamp()";
const REMOVE_EXPIRED: &str = "\
    DELETE FROM shard_replicas \
    WHERE queue = $1 AND connection = $2 AND until <= clock_timestamp()";
const REPLACE: &str = "\
    UPDATE shard_layouts SET shards = $3, prefetch = $4, draining = false \
    WHERE queue = $1 AND shards = $2 AND draining";
const REMOVE: &str = "DELETE FROM shard_layouts WHERE queue = $1 AND shards = $2 AND draining";

type Parameters<'a> = &'a [&'a (dyn ToSql + Sync)];

fn columns(shards: Shards) -> Result<(i16, i32), StoreError> {
    let count = i16::try_from(shards.count).map_err(|_| unreadable())?;
    Ok((count, i32::from(shards.prefetch)))
}

fn shards(row: &Row) -> Result<Shards, StoreError> {
    let (count, prefetch): (i16, i32) = (row.try_get(0)?, row.try_get(1)?);
    Ok(Shards {
        count: u16::try_from(count).map_err(|_| unreadable())?,
        prefetch: u16::try_from(prefetch).map_err(|_| unreadable())?,
    })
}

fn unreadable() -> StoreError {
    let reason = "the row of shard_layouts is out of range; correct shards and prefetch";
    StoreError::new(ErrorKind::Operator, reason)
}

fn number(row: &Row) -> Result<usize, StoreError> {
    let count: i64 = row.try_get(0)?;
    Ok(usize::try_from(count).unwrap_or_default())
}

/// Enters under the lock of the layout's row.
async fn enter(
    transaction: &Transaction<'_>,
    queue: &str,
    wanted: Option<Shards>,
    replica: Replica,
) -> Result<LayoutEntry, StoreError> {
    let Some(row) = transaction.query_opt(LOCK, &[&queue]).await? else {
        return Ok(LayoutEntry::Absent);
    };
    let current = shards(&row)?;
    if row.try_get(2)? {
        return Ok(LayoutEntry::Draining(current));
    }
    if wanted.is_some_and(|wanted| wanted.count == current.count) {
        let ttl = REPLICA_TTL.as_secs_f64();
        let parameters: Parameters<'_> = &[&queue, &replica.id, &replica.connection, &ttl];
        transaction.execute(ENTER, parameters).await?;
        return Ok(LayoutEntry::Entered(current));
    }
    let parameters: Parameters<'_> = &[&queue, &replica.id];
    let replicas = number(&transaction.query_one(OTHERS, parameters).await?)?;
    if replicas > 0 {
        let shards = current;
        return Ok(LayoutEntry::Occupied { shards, replicas });
    }
    transaction.execute(LEAVE, parameters).await?;
    transaction.execute(DRAIN, &[&queue]).await?;
    Ok(LayoutEntry::Draining(current))
}

#[async_trait]
impl ShardLayoutStore for PostgresStore {
    async fn enter(
        &self,
        queue: &str,
        wanted: Option<Shards>,
        replica: Replica,
        create: bool,
    ) -> Result<LayoutEntry, StoreError> {
        self.pools
            .maintain(async |client| {
                let transaction = client.transaction().await?;
                if let Some(wanted) = wanted.filter(|_| create) {
                    let (count, prefetch) = columns(wanted)?;
                    let parameters: Parameters<'_> = &[&queue, &count, &prefetch];
                    transaction.execute(CREATE, parameters).await?;
                }
                let entry = enter(&transaction, queue, wanted, replica).await?;
                transaction.commit().await?;
                Ok(entry)
            })
            .await
    }

    async fn renew(&self, queue: &str, connection: Uuid) -> Result<Option<usize>, StoreError> {
        self.pools
            .maintain(async |client| {
                let ttl = REPLICA_TTL.as_secs_f64();
                let statement = client.prepare_cached(RENEW).await?;
                let parameters: Parameters<'_> = &[&queue, &connection, &ttl];
                let renewed = client.query_opt(&statement, parameters).await?;
                renewed.map(|row| Ok(number(&row)? + 1)).transpose()
            })
            .await
    }

    async fn expired(&self, queue: &str) -> Result<Vec<Uuid>, StoreError> {
        self.pools
            .maintain(async |client| {
                let rows = client.query(EXPIRED, &[&queue]).await?;
                rows.iter().map(|row| Ok(row.try_get(0)?)).collect()
            })
            .await
    }

    async fn remove_expired(&self, queue: &str, connection: Uuid) -> Result<(), StoreError> {
        self.pools
            .maintain(async |client| {
                client
                    .execute(REMOVE_EXPIRED, &[&queue, &connection])
                    .await?;
                Ok(())
            })
            .await
    }

    async fn replace(
        &self,
        queue: &str,
        drained: Shards,
        next: Option<Shards>,
    ) -> Result<(), StoreError> {
        self.pools
            .maintain(async |client| {
                let (drained, _) = columns(drained)?;
                match next {
                    Some(next) => {
                        let (count, prefetch) = columns(next)?;
                        let parameters: Parameters<'_> = &[&queue, &drained, &count, &prefetch];
                        client.execute(REPLACE, parameters).await?
                    }
                    None => client.execute(REMOVE, &[&queue, &drained]).await?,
                };
                Ok(())
            })
            .await
    }
}

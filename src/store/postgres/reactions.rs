//! Reactions; see [`ReactionStore`].

use super::PostgresStore;
use super::follower_commands::notify;
use super::follower_records::records;
use super::prepared::Prepare;
use super::reaction_queue;
use super::reopened;
use super::schema::{reaction_positions as reached, reaction_runs, reactions};
use crate::store::StoreError;
use crate::store::commit_log::{CommitLog, Position, ROUND};
use crate::store::followers::{FollowerKind, FollowerRecord, Start};
use crate::store::reactions::{
    Claim, Claimed, FinishedClaims, QueueKey, ReactionDeclaration, ReactionPosition,
    ReactionRecord, ReactionStore, ReopenedKey, parse_lane,
};
use async_trait::async_trait;
use chrono::{DateTime, Utc};
use diesel::prelude::*;
use diesel::sql_types::{Array, Bool, Integer, Text};
use diesel_async::{AsyncPgConnection, RunQueryDsl};

const DECLARE: &str = "SELECT eclusa_declare_reaction($1, $2, $3::jsonb, $4, $5) AS changed";

#[derive(QueryableByName)]
struct ChangedRow {
    #[diesel(sql_type = Bool)]
    changed: bool,
}

const AWAITED: &str = "\
    SELECT DISTINCT unnest(d.types) AS word FROM followers AS f \
    JOIN follower_declarations AS d ON d.follower = f.name WHERE f.kind = 'reaction'";

#[derive(QueryableByName)]
struct WordRow {
    #[diesel(sql_type = Text)]
    word: String,
}

const ORDER_KEYS: &str = "\
    SELECT DISTINCT order_key AS word FROM reaction_queue WHERE reaction = $1 AND order_key = ANY ($2)";
const UNIQUE_KEYS: &str = "\
    SELECT DISTINCT unique_key AS word FROM reaction_queue WHERE reaction = $1 AND unique_key = ANY ($2)";

type ReactionRow = (i32, String, bool, DateTime<Utc>);

/// The records of these reactions, with their lanes.
pub(super) async fn with_lanes(
    connection: &mut AsyncPgConnection,
    rows: Vec<ReactionRow>,
) -> QueryResult<Vec<ReactionRecord>> {
    let mut lanes = records(connection, None).await?;
    lanes.retain(|lane| lane.kind == FollowerKind::Reaction);
    Ok(rows
        .into_iter()
        .map(|(id, name, paused, declared_at)| {
            let number = |lane: &FollowerRecord| {
                let (reaction, number) = parse_lane(&lane.name)?;
                (reaction == name).then_some(number)
            };
            let mut own: Vec<FollowerRecord> = lanes
                .extract_if(.., |lane| number(lane).is_some())
                .collect();
            own.sort_by_key(number);
            ReactionRecord {
                id,
                name,
                paused,
                declared_at,
                lanes: own,
            }
        })
        .collect())
}

/// The event types that reactions were declared for.
pub(super) async fn awaited(connection: &mut AsyncPgConnection) -> QueryResult<Vec<String>> {
    let rows: Vec<WordRow> = diesel::sql_query(AWAITED)
        .prepared()
        .load(connection)
        .await?;
    Ok(rows.into_iter().map(|row| row.word).collect())
}

#[async_trait]
impl ReactionStore for PostgresStore {
    async fn declare_reaction(
        &self,
        declaration: &ReactionDeclaration,
    ) -> Result<bool, StoreError> {
        // A backlog is not numbered in the transaction of the declaration, which is one for all of it.
        while self.number_commits().await?.commits >= ROUND {}
        let spec = serde_json::to_string(&declaration.spec).unwrap_or_default();
        let lanes = i32::try_from(declaration.spec.lanes).unwrap_or(i32::MAX);
        let declare = async |connection: &mut AsyncPgConnection| {
            let row: ChangedRow = diesel::sql_query(DECLARE)
                .bind::<Text, _>(&declaration.name)
                .bind::<Array<Text>, _>(declaration.types.to_vec())
                .bind::<Text, _>(spec)
                .bind::<Integer, _>(lanes)
                .bind::<Bool, _>(declaration.start == Start::Now)
                .prepared()
                .get_result(connection)
                .await?;
            if row.changed {
                notify(connection).await?;
            }
            Ok(row.changed)
        };
        let changed = self.pools.sequence(declare).await?;
        self.refresh_awaited().await?;
        Ok(changed)
    }

    async fn reaction(&self, name: &str) -> Result<Option<ReactionRecord>, StoreError> {
        let load = async |connection: &mut AsyncPgConnection| {
            let row = reactions::table.filter(reactions::name.eq(name));
            let rows: Vec<ReactionRow> = row.load(connection).await?;
            Ok(with_lanes(connection, rows).await?.pop())
        };
        self.pools.sequence(load).await
    }

    async fn reactions(&self) -> Result<Vec<ReactionRecord>, StoreError> {
        let load = async |connection: &mut AsyncPgConnection| {
            let rows = reactions::table.order(reactions::name);
            let rows: Vec<ReactionRow> = rows.load(connection).await?;
            with_lanes(connection, rows).await
        };
        self.pools.read(load).await
    }

    async fn refresh_awaited(&self) -> Result<(), StoreError> {
        let load = async |connection: &mut AsyncPgConnection| awaited(connection).await;
        self.awaited.set(self.pools.sequence(load).await?);
        Ok(())
    }

    async fn reaction_positions(&self) -> Result<Vec<ReactionPosition>, StoreError> {
        let load = async |connection: &mut AsyncPgConnection| {
            let rows: Vec<(i64, Option<i64>)> = reached::table
                .select((reached::marked_to, reached::decided_to))
                .load(connection)
                .await?;
            Ok(rows.into_iter().map(ReactionPosition::new).collect())
        };
        self.pools.sequence(load).await
    }

    async fn decided(
        &self,
        reaction: i32,
        after: Position,
        until: Position,
    ) -> Result<Vec<Position>, StoreError> {
        let load = async |connection: &mut AsyncPgConnection| {
            let positions: Vec<i64> = reaction_runs::table
                .filter(reaction_runs::reaction.eq(reaction))
                .filter(reaction_runs::position.gt(after.0))
                .filter(reaction_runs::position.le(until.0))
                .select(reaction_runs::position)
                .load(connection)
                .await?;
            Ok(positions.into_iter().map(Position).collect())
        };
        self.pools.sequence(load).await
    }

    async fn queued_keys(
        &self,
        reaction: i32,
        kind: QueueKey,
        keys: &[String],
    ) -> Result<Vec<String>, StoreError> {
        let query = match kind {
            QueueKey::Order => ORDER_KEYS,
            QueueKey::Unique => UNIQUE_KEYS,
        };
        let load = async |connection: &mut AsyncPgConnection| {
            let rows: Vec<WordRow> = diesel::sql_query(query)
                .bind::<Integer, _>(reaction)
                .bind::<Array<Text>, _>(keys)
                .prepared()
                .load(connection)
                .await?;
            Ok(rows.into_iter().map(|row| row.word).collect())
        };
        self.pools.sequence(load).await
    }

    async fn reopened_keys(
        &self,
        reaction: i32,
        after: Position,
        limit: usize,
    ) -> Result<Vec<ReopenedKey>, StoreError> {
        self.pools
            .sequence(async |connection| reopened::keys(connection, reaction, after, limit).await)
            .await
    }

    async fn claim(&self, claim: &Claim) -> Result<Claimed, StoreError> {
        self.pools
            .sequence(async |connection| reaction_queue::claim(connection, claim).await)
            .await
    }

    async fn finish(&self, finished: FinishedClaims) -> Result<u64, StoreError> {
        self.pools
            .follow(async |connection| {
                reaction_queue::finish(connection, &finished)
                    .await
                    .map_err(StoreError::postgres_read)
            })
            .await
    }
}

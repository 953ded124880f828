//! What is left of removed reactions: their outcomes, and events that only they kept from being processed.

use super::processed;
use super::transactions::in_transaction;
use diesel::prelude::*;
use diesel::sql_query;
use diesel::sql_types::{Array, BigInt, Integer, Text, Uuid as UuidType};
use diesel_async::{AsyncPgConnection, RunQueryDsl};
use uuid::Uuid;

/// Outcomes that are deleted at a time.
const SLICE: i64 = 5_000;

const REMEMBER: &str = "\
    INSERT INTO removed_reactions (id, types, until) \
    SELECT $1, coalesce(array_agg(DISTINCT t.word), '{}'), $3 \
    FROM follower_declarations AS d, unnest(d.types) AS t (word) WHERE d.follower = ANY ($2)";

/// Remembers a reaction that is being removed, with what its lanes were declared for.
pub(super) async fn remember(
    connection: &mut AsyncPgConnection,
    reaction: i32,
    lanes: &[String],
    end: i64,
) -> QueryResult<()> {
    sql_query(REMEMBER)
        .bind::<Integer, _>(reaction)
        .bind::<Array<Text>, _>(lanes)
        .bind::<BigInt, _>(end)
        .execute(connection)
        .await?;
    Ok(())
}

#[derive(QueryableByName)]
struct RemovedRow {
    #[diesel(sql_type = Integer)]
    id: i32,
}

#[derive(QueryableByName)]
struct UndoneRow {
    #[diesel(sql_type = UuidType)]
    event_id: Uuid,
    #[diesel(sql_type = BigInt)]
    position: i64,
}

/// The first outcomes of a reaction that pass a condition.
fn delete(condition: &str) -> String {
    format!(
        "DELETE FROM reaction_runs WHERE {condition} AND position <= \
             (SELECT max(position) FROM (SELECT position FROM reaction_runs WHERE {condition} \
                                         ORDER BY position LIMIT $2) AS slice)"
    )
}

/// By then no writer is left that has not heard of the removal, and the events up to it are marked.
const FORGET: &str = "\
    WITH gone AS ( \
        DELETE FROM removed_reactions AS r \
        WHERE r.id = $1 AND r.removed_at < clock_timestamp() - interval '1 day' \
          AND r.until <= (SELECT max(marked_to) FROM reaction_marks WHERE reaction = r.id) \
        RETURNING id \
    ) \
    DELETE FROM reaction_marks WHERE reaction IN (SELECT id FROM gone)";

/// Deletes a slice of what keeps events from being processed, and marks these events. Returns how many there were.
pub(super) async fn release(connection: &mut AsyncPgConnection) -> QueryResult<u64> {
    in_transaction(connection, async |connection| {
        processed::hold_marks(connection).await?;
        for id in ids(connection).await? {
            for state in ["open", "failed"] {
                let condition = format!("reaction = $1 AND state = '{state}'");
                let slice = format!("{} RETURNING event_id, position", delete(&condition));
                let undone: Vec<UndoneRow> = sql_query(slice)
                    .bind::<Integer, _>(id)
                    .bind::<BigInt, _>(SLICE)
                    .load(connection)
                    .await?;
                if undone.is_empty() {
                    continue;
                }
                let ids: Vec<Uuid> = undone.iter().map(|row| row.event_id).collect();
                let positions: Vec<i64> = undone.iter().map(|row| row.position).collect();
                processed::mark_ended(connection, &ids, &positions).await?;
                return Ok(undone.len() as u64);
            }
        }
        Ok(0)
    })
    .await
}

/// Deletes a slice of the outcomes, and forgets the reactions of which nothing is left. Returns how many there were.
pub(super) async fn expire(connection: &mut AsyncPgConnection) -> QueryResult<u64> {
    let released = release(connection).await?;
    if released > 0 {
        return Ok(released);
    }
    for id in ids(connection).await? {
        let deleted = sql_query(delete("reaction = $1"))
            .bind::<Integer, _>(id)
            .bind::<BigInt, _>(SLICE)
            .execute(connection)
            .await?;
        if deleted > 0 {
            return Ok(deleted as u64);
        }
        sql_query(FORGET)
            .bind::<Integer, _>(id)
            .execute(connection)
            .await?;
    }
    Ok(0)
}

async fn ids(connection: &mut AsyncPgConnection) -> QueryResult<Vec<i32>> {
    const IDS: &str = "SELECT id FROM removed_reactions ORDER BY id";
    let rows: Vec<RemovedRow> = sql_query(IDS).load(connection).await?;
    Ok(rows.into_iter().map(|row| row.id).collect())
}

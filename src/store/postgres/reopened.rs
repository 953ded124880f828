//! Runs with a key that were opened again, until the lane of the key releases them.

use super::prepared::Prepare;
use crate::store::commit_log::Position;
use crate::store::reactions::ReopenedKey;
use diesel::sql_types::{Array, BigInt, Integer, Text};
use diesel::{QueryResult, sql_query};
use diesel_async::{AsyncPgConnection, RunQueryDsl};

const KEYS: &str = "\
    SELECT position, coalesce(order_key, unique_key) AS key FROM reaction_queue \
    WHERE reaction = $1 AND reopened AND position > $2 ORDER BY position LIMIT $3";

#[derive(diesel::QueryableByName)]
struct KeyRow {
    #[diesel(sql_type = BigInt)]
    position: i64,
    #[diesel(sql_type = Text)]
    key: String,
}

pub(super) async fn keys(
    connection: &mut AsyncPgConnection,
    reaction: i32,
    after: Position,
    limit: usize,
) -> QueryResult<Vec<ReopenedKey>> {
    let rows: Vec<KeyRow> = sql_query(KEYS)
        .bind::<Integer, _>(reaction)
        .bind::<BigInt, _>(after.0)
        .bind::<BigInt, _>(i64::try_from(limit).unwrap_or(i64::MAX))
        .prepared()
        .load(connection)
        .await?;
    let key = |row: KeyRow| ReopenedKey {
        position: Position(row.position),
        key: row.key,
    };
    Ok(rows.into_iter().map(key).collect())
}

/// All of an order key at once: the first run of the key is due, unless another one is due or claimed already.
const RELEASE_ORDERED: &str = "\
    UPDATE reaction_queue AS q \
    SET reopened = false, \
        due = CASE WHEN head.is_active OR q.position > head.position THEN 'infinity' \
                   WHEN q.due = 'infinity' THEN clock_timestamp() ELSE q.due END \
    FROM (SELECT order_key, min(position) AS position, \
                 bool_or(NOT reopened AND due < 'infinity') AS is_active, bool_or(reopened) AS is_held \
          FROM reaction_queue WHERE reaction = $1 AND order_key = ANY ($2) GROUP BY order_key) AS head \
    WHERE q.reaction = $1 AND q.order_key = head.order_key AND head.is_held \
      AND (q.reopened OR NOT head.is_active AND q.position = head.position)";

/// One of a unique key at a time.
const RELEASE_UNIQUE: &str = "\
    UPDATE reaction_queue AS q SET reopened = false \
    FROM (SELECT min(position) AS position FROM reaction_queue \
          WHERE reaction = $1 AND unique_key = ANY ($2) AND order_key IS NULL \
          GROUP BY unique_key HAVING bool_and(reopened)) AS head \
    WHERE q.reaction = $1 AND q.position = head.position";

/// Releases the runs of these keys, behind the locks of the keys.
pub(super) async fn release(
    connection: &mut AsyncPgConnection,
    reaction: i32,
    keys: &[String],
) -> QueryResult<()> {
    for statement in [RELEASE_ORDERED, RELEASE_UNIQUE] {
        sql_query(statement)
            .bind::<Integer, _>(reaction)
            .bind::<Array<Text>, _>(keys)
            .prepared()
            .execute(connection)
            .await?;
    }
    Ok(())
}

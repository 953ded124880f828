//! Where events lie in the log, and what held of a reaction there.

use super::commits::behind;
use super::reaction_runs::days;
use super::schema::follower_declarations as declarations;
use super::schema::user_interactions::dsl;
use crate::event::{StoredEvent, id};
use crate::store::commit_log::{Position, TypePatterns};
use crate::store::queries;
use crate::store::reactions::lane_name;
use crate::store::rows::{EventRow, JsonColumn, TimeColumn};
use crate::store::runs::Held;
use chrono::{DateTime, Utc};
use diesel::prelude::*;
use diesel::sql_types::{BigInt, Date, Timestamptz, Uuid as UuidType};
use diesel_async::{AsyncPgConnection, RunQueryDsl};
use uuid::Uuid;

#[derive(QueryableByName)]
struct PositionRow {
    #[diesel(sql_type = BigInt)]
    position: i64,
}

const OF_EVENT: &str = "\
    SELECT commits.seq << 12 | (event.id & 4095) AS position \
    FROM user_interactions AS event JOIN log_commits AS commits ON commits.block = event.id >> 12 \
    WHERE event.event_id = $1 AND event.bucket = $2";

pub(super) async fn of_event(
    connection: &mut AsyncPgConnection,
    event_id: Uuid,
) -> QueryResult<Option<Position>> {
    let row: Option<PositionRow> = diesel::sql_query(OF_EVENT)
        .bind::<UuidType, _>(event_id)
        .bind::<Date, _>(id::bucket(&event_id))
        .get_result(connection)
        .await
        .optional()?;
    Ok(row.map(|row| Position(row.position)))
}

/// The last commit that was numbered before a time, since `numbered_at` never decreases: half of what is left at each
/// step. `low` was numbered before it, `high` was not, and numbers between may be missing.
const AT: &str = "\
    WITH RECURSIVE search (low, high) AS ( \
        SELECT 0::bigint, coalesce(max(seq), 0) + 1 FROM log_commits \
        UNION ALL \
        SELECT CASE WHEN mid.numbered_at < $1 THEN mid.seq ELSE low END, \
               CASE WHEN mid.numbered_at < $1 THEN high ELSE (low + high) / 2 END \
        FROM search \
        CROSS JOIN LATERAL (SELECT seq, numbered_at FROM log_commits WHERE seq >= (low + high) / 2 \
                            ORDER BY seq LIMIT 1) AS mid \
        WHERE high - low > 1 \
    ) \
    SELECT max(low) AS position FROM search";

pub(super) async fn at(
    connection: &mut AsyncPgConnection,
    time: DateTime<Utc>,
) -> QueryResult<Position> {
    let row: PositionRow = diesel::sql_query(AT)
        .bind::<Timestamptz, _>(TimeColumn::bound(time))
        .get_result(connection)
        .await?;
    Ok(behind(row.position))
}

/// All lanes have the same declarations, and the first one is never gone.
pub(super) async fn held(
    connection: &mut AsyncPgConnection,
    reaction: &str,
    position: Position,
) -> QueryResult<Option<Held>> {
    let row: Option<(i64, Vec<String>, Option<JsonColumn>)> = declarations::table
        .filter(declarations::follower.eq(lane_name(reaction, 0)))
        .filter(declarations::holds_from.lt(position.0))
        .order(declarations::holds_from.desc())
        .select((
            declarations::holds_from,
            declarations::types,
            declarations::spec,
        ))
        .first(connection)
        .await
        .optional()?;
    let Some((from, types, Some(spec))) = row else {
        return Ok(None);
    };
    Ok(Some(Held {
        from: Position(from),
        types: TypePatterns::new(types),
        spec: spec.parse()?,
    }))
}

pub(super) async fn events(
    connection: &mut AsyncPgConnection,
    ids: &[Uuid],
) -> QueryResult<Vec<StoredEvent>> {
    let rows: Vec<EventRow> = dsl::user_interactions
        .select(queries::event_columns!())
        .filter(dsl::event_id.eq_any(ids))
        .filter(dsl::bucket.eq_any(days(ids)))
        .load(connection)
        .await?;
    Ok(rows.into_iter().map(Into::into).collect())
}

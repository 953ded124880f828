//! What the database has of followers.

use super::prepared::Prepare;
use super::schema::log_floor;
use crate::store::commit_log::{Position, TypePatterns};
use crate::store::followers::{FollowerKind, FollowerRecord, FollowerState, OnError};
use chrono::{DateTime, NaiveDate, Utc};
use diesel::prelude::*;
use diesel::sql_types::{Array, BigInt, Bool, Date, Integer, Nullable, Text, Timestamptz};
use diesel_async::{AsyncPgConnection, RunQueryDsl};

const RECORDS: &str = "\
    SELECT f.name, f.kind, f.state, f.reason, f.on_error, f.revision, f.rebuild, f.complete_since, \
           p.n, p.position, p.stored_at, p.begun, d.types, d.spec, next.holds_from AS until, \
           lease.holder AS run_by, \
           (SELECT count(*) FROM follower_replays AS r WHERE r.follower = f.name) AS replays \
    FROM followers AS f \
    CROSS JOIN LATERAL (SELECT n, position, stored_at, begun FROM follower_positions \
                        WHERE follower = f.name ORDER BY n DESC LIMIT 1) AS p \
    CROSS JOIN LATERAL (SELECT types, spec::text FROM follower_declarations \
                        WHERE follower = f.name AND holds_from <= p.position \
                        ORDER BY holds_from DESC LIMIT 1) AS d \
    LEFT JOIN LATERAL (SELECT holds_from FROM follower_declarations \
                       WHERE follower = f.name AND holds_from > p.position \
                       ORDER BY holds_from LIMIT 1) AS next ON true \
    LEFT JOIN leases AS lease \
        ON lease.name = 'follower ' || f.name AND lease.until > clock_timestamp() \
    WHERE $1 IS NULL OR f.name = $1 ORDER BY f.name";

#[derive(QueryableByName)]
struct RecordRow {
    #[diesel(sql_type = Text)]
    name: String,
    #[diesel(sql_type = Text)]
    kind: String,
    #[diesel(sql_type = Text)]
    state: String,
    #[diesel(sql_type = Nullable<Text>)]
    reason: Option<String>,
    #[diesel(sql_type = Text)]
    on_error: String,
    #[diesel(sql_type = BigInt)]
    revision: i64,
    #[diesel(sql_type = Bool)]
    rebuild: bool,
    #[diesel(sql_type = Nullable<Date>)]
    complete_since: Option<NaiveDate>,
    #[diesel(sql_type = BigInt)]
    n: i64,
    #[diesel(sql_type = BigInt)]
    position: i64,
    #[diesel(sql_type = Timestamptz)]
    stored_at: DateTime<Utc>,
    #[diesel(sql_type = Integer)]
    begun: i32,
    #[diesel(sql_type = Array<Text>)]
    types: Vec<String>,
    #[diesel(sql_type = Nullable<Text>)]
    spec: Option<String>,
    #[diesel(sql_type = Nullable<BigInt>)]
    until: Option<i64>,
    #[diesel(sql_type = BigInt)]
    replays: i64,
    #[diesel(sql_type = Nullable<Text>)]
    run_by: Option<String>,
}

impl From<RecordRow> for FollowerRecord {
    fn from(row: RecordRow) -> Self {
        Self {
            name: row.name,
            kind: FollowerKind::parse(&row.kind),
            state: FollowerState::parse(&row.state),
            reason: row.reason,
            on_error: OnError::parse(&row.on_error),
            revision: row.revision,
            rebuild: row.rebuild,
            complete_since: row.complete_since,
            n: row.n,
            position: Position(row.position),
            moved_at: row.stored_at,
            types: TypePatterns::new(row.types),
            until: row.until.map_or(Position::MAX, Position),
            replays: row.replays.unsigned_abs(),
            run_by: row.run_by,
            spec: row.spec.and_then(|spec| serde_json::from_str(&spec).ok()),
            begun: row.begun.unsigned_abs(),
        }
    }
}

pub(super) async fn records(
    connection: &mut AsyncPgConnection,
    name: Option<&str>,
) -> QueryResult<Vec<FollowerRecord>> {
    let rows: Vec<RecordRow> = diesel::sql_query(RECORDS)
        .bind::<Nullable<Text>, _>(name)
        .prepared()
        .load(connection)
        .await?;
    Ok(rows.into_iter().map(Into::into).collect())
}

/// The day from which on the log is complete.
pub(super) async fn floor(connection: &mut AsyncPgConnection) -> QueryResult<Option<NaiveDate>> {
    log_floor::table
        .select(log_floor::complete_since)
        .first(connection)
        .await
}

//! The messages of a place that a call may hand out.

use super::prepared::Prepare;
use super::stream_calls::NumberKeyRow;
use crate::store::streams::Place;
use crate::store::streams::holdings::{AHEAD, Candidate, Holdings};
use chrono::{DateTime, Utc};
use diesel::sql_types::{Array, BigInt, Bool, Integer, Nullable, Text, Timestamptz};
use diesel::{QueryResult, sql_query};
use diesel_async::{AsyncPgConnection, RunQueryDsl};
use std::collections::HashSet;

/// What a call looks for.
pub(super) struct Wanted {
    pub(super) limit: usize,
    pub(super) ordered: bool,
    pub(super) now: DateTime<Utc>,
    /// The order keys that other sessions have.
    pub(super) held: HashSet<String>,
}

/// Of an order key, nothing is a candidate behind one that is not due, or while another session has some of it.
const CANDIDATES: &str = "\
    (SELECT r.number, r.deliveries, r.order_key, true AS returned FROM stream_returned AS r \
     WHERE r.stream = $1 AND r.key = $2 AND r.due <= $5 AND (r.order_key = ANY ($6)) IS NOT TRUE \
       AND NOT EXISTS (SELECT FROM stream_returned AS before \
                       WHERE r.order_key IS NOT NULL AND before.stream = $1 AND before.key = $2 \
                         AND before.order_key = r.order_key AND before.number < r.number AND before.due > $5) \
     ORDER BY r.number LIMIT $4) \
    UNION ALL \
    (SELECT number, 0, order_key, false FROM stream_messages \
     WHERE stream = $1 AND key = $2 AND number > $3 ORDER BY number LIMIT $4)";

const FRESH: &str = "\
    SELECT number, 0 AS deliveries, order_key, false AS returned FROM stream_messages \
    WHERE stream = $1 AND key = $2 AND number > $3 ORDER BY number LIMIT $4";

#[derive(diesel::QueryableByName)]
struct CandidateRow {
    #[diesel(sql_type = BigInt)]
    number: i64,
    #[diesel(sql_type = Integer)]
    deliveries: i32,
    #[diesel(sql_type = Nullable<Text>)]
    order_key: Option<String>,
    #[diesel(sql_type = Bool)]
    returned: bool,
}

const RETURNED_KEYS: &str = "\
    SELECT keys.key AS order_key FROM unnest($3::text[]) AS keys (key) WHERE coalesce( \
        (SELECT true FROM stream_returned WHERE stream = $1 AND key = $2 AND order_key = keys.key LIMIT 1), \
        (SELECT true FROM stream_parked WHERE stream = $1 AND key = $2 AND order_key = keys.key LIMIT 1), false)";

#[derive(diesel::QueryableByName)]
struct KeyRow {
    #[diesel(sql_type = Text)]
    order_key: String,
}

/// The first message of an order key that has returned and is not due.
const DELAYED: &str = "\
    SELECT first.number, keys.key AS order_key FROM unnest($3::text[]) AS keys (key) CROSS JOIN LATERAL ( \
        SELECT number FROM stream_returned \
        WHERE stream = $1 AND key = $2 AND order_key = keys.key AND due > $4 ORDER BY number LIMIT 1) AS first";

/// Adds the candidates to what the place holds.
pub(super) async fn load(
    connection: &mut AsyncPgConnection,
    place: &Place,
    wanted: Wanted,
    holdings: &mut Holdings,
) -> QueryResult<()> {
    let mut limit = match wanted.ordered {
        true => AHEAD.max(wanted.limit),
        false => wanted.limit,
    };
    let rows: Vec<CandidateRow> = sql_query(CANDIDATES)
        .bind::<Integer, _>(place.stream)
        .bind::<Text, _>(&place.key)
        .bind::<BigInt, _>(holdings.cursor)
        .bind::<BigInt, _>(i64::try_from(limit).unwrap_or(i64::MAX))
        .bind::<Timestamptz, _>(wanted.now)
        .bind::<Array<Text>, _>(Vec::from_iter(wanted.held.iter().map(String::as_str)))
        .prepared()
        .load(connection)
        .await?;
    let candidate = |row: CandidateRow| Candidate {
        number: row.number,
        deliveries: row.deliveries.unsigned_abs(),
        order_key: row.order_key.filter(|_| wanted.ordered),
    };
    let (returned, fresh): (Vec<_>, Vec<_>) = rows.into_iter().partition(|row| row.returned);
    holdings.returned = returned.into_iter().map(candidate).collect();
    let mut fresh: Vec<Candidate> = fresh.into_iter().map(candidate).collect();
    loop {
        returned_keys(connection, place, &fresh, holdings).await?;
        let Some(more) = holdings.found(fresh, limit, &wanted.held) else {
            break;
        };
        limit = more;
        let rows: Vec<CandidateRow> = sql_query(FRESH)
            .bind::<Integer, _>(place.stream)
            .bind::<Text, _>(&place.key)
            .bind::<BigInt, _>(holdings.seen())
            .bind::<BigInt, _>(i64::try_from(limit).unwrap_or(i64::MAX))
            .prepared()
            .load(connection)
            .await?;
        fresh = rows.into_iter().map(candidate).collect();
    }
    delayed(connection, place, &wanted, holdings).await
}

/// Adds those of the order keys of these messages of which something has returned or is parked.
async fn returned_keys(
    connection: &mut AsyncPgConnection,
    place: &Place,
    fresh: &[Candidate],
    holdings: &mut Holdings,
) -> QueryResult<()> {
    let keys = fresh.iter().filter_map(|one| one.order_key.as_deref());
    let keys = keys.filter(|key| !holdings.returned_keys.contains(*key));
    let keys: HashSet<&str> = keys.collect();
    if keys.is_empty() {
        return Ok(());
    }
    let rows: Vec<KeyRow> = sql_query(RETURNED_KEYS)
        .bind::<Integer, _>(place.stream)
        .bind::<Text, _>(&place.key)
        .bind::<Array<Text>, _>(Vec::from_iter(keys))
        .prepared()
        .load(connection)
        .await?;
    let keys = rows.into_iter().map(|row| row.order_key);
    holdings.returned_keys.extend(keys);
    Ok(())
}

async fn delayed(
    connection: &mut AsyncPgConnection,
    place: &Place,
    wanted: &Wanted,
    holdings: &mut Holdings,
) -> QueryResult<()> {
    let keys = holdings.lapsing_keys(wanted.now);
    if keys.is_empty() || !wanted.ordered {
        return Ok(());
    }
    let rows: Vec<NumberKeyRow> = sql_query(DELAYED)
        .bind::<Integer, _>(place.stream)
        .bind::<Text, _>(&place.key)
        .bind::<Array<Text>, _>(Vec::from_iter(keys))
        .bind::<Timestamptz, _>(wanted.now)
        .prepared()
        .load(connection)
        .await?;
    let first = rows.into_iter().map(|row| (row.order_key, row.number));
    holdings.delayed = first.collect();
    Ok(())
}

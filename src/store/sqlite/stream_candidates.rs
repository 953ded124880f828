//! The messages of a place that a call may hand out.

use super::schema::{
    stream_messages as messages, stream_parked as parked, stream_returned as returned,
};
use crate::store::streams::Place;
use crate::store::streams::holdings::{AHEAD, Candidate, Holdings};
use chrono::DateTime;
use diesel::dsl::{exists, not, sql};
use diesel::prelude::*;
use diesel::sql_types::{Bool, Text};
use std::collections::HashSet;

/// What a call looks for.
pub(super) struct Wanted {
    pub(super) limit: usize,
    pub(super) ordered: bool,
    /// Microseconds since 1970.
    pub(super) now: i64,
    /// The order keys that other sessions have.
    pub(super) held: HashSet<String>,
}

type CandidateRow = (i64, i32, Option<String>);

fn candidate((number, deliveries, order_key): CandidateRow) -> Candidate {
    Candidate {
        number,
        deliveries: deliveries.unsigned_abs(),
        order_key,
    }
}

/// Adds the candidates to what the place holds.
pub(super) fn load(
    connection: &mut SqliteConnection,
    place: &Place,
    wanted: Wanted,
    holdings: &mut Holdings,
) -> QueryResult<()> {
    let mut limit = match wanted.ordered {
        true => AHEAD.max(wanted.limit),
        false => wanted.limit,
    };
    holdings.returned = due(connection, place, &wanted, limit)?;
    loop {
        let mut fresh = fresh(connection, place, holdings.seen(), limit)?;
        if wanted.ordered {
            returned_keys(connection, place, &fresh, holdings)?;
        } else {
            let all = holdings.returned.iter_mut().chain(&mut fresh);
            all.for_each(|one| one.order_key = None);
        }
        match holdings.found(fresh, limit, &wanted.held) {
            Some(more) => limit = more,
            None => break,
        }
    }
    match wanted.ordered {
        true => delayed(connection, place, wanted.now, holdings),
        false => Ok(()),
    }
}

/// What has returned. Of an order key, nothing is a candidate behind one that is not due, or while another session has
/// some of it.
fn due(
    connection: &mut SqliteConnection,
    place: &Place,
    wanted: &Wanted,
    limit: usize,
) -> QueryResult<Vec<Candidate>> {
    // In one variable, of which a statement has at most 32,766.
    let held = serde_json::to_string(&wanted.held)
        .map_err(|error| diesel::result::Error::SerializationError(Box::new(error)))?;
    let is_free = sql::<Bool>(
        "(stream_returned.order_key IS NULL \
          OR stream_returned.order_key NOT IN (SELECT value FROM json_each(",
    )
    .bind::<Text, _>(held)
    .sql(")))");
    let before = diesel::alias!(returned as before);
    let held_back = before
        .filter(before.field(returned::stream).eq(place.stream))
        .filter(before.field(returned::key).eq(&place.key))
        .filter(before.field(returned::order_key).eq(returned::order_key))
        .filter(before.field(returned::number).lt(returned::number))
        .filter(before.field(returned::due).gt(wanted.now));
    let due: Vec<CandidateRow> = returned::table
        .filter(returned::stream.eq(place.stream))
        .filter(returned::key.eq(&place.key))
        .filter(returned::due.le(wanted.now))
        .filter(not(exists(held_back)))
        .filter(is_free)
        .order(returned::number)
        .limit(i64::try_from(limit).unwrap_or(i64::MAX))
        .select((returned::number, returned::deliveries, returned::order_key))
        .load(connection)?;
    Ok(due.into_iter().map(candidate).collect())
}

/// What follows a number.
fn fresh(
    connection: &mut SqliteConnection,
    place: &Place,
    behind: i64,
    limit: usize,
) -> QueryResult<Vec<Candidate>> {
    let fresh: Vec<(i64, Option<String>)> = messages::table
        .filter(messages::stream.eq(place.stream))
        .filter(messages::key.eq(&place.key))
        .filter(messages::number.gt(behind))
        .order(messages::number)
        .limit(i64::try_from(limit).unwrap_or(i64::MAX))
        .select((messages::number, messages::order_key))
        .load(connection)?;
    let fresh = fresh.into_iter();
    Ok(fresh
        .map(|(number, order_key)| candidate((number, 0, order_key)))
        .collect())
}

/// Adds those of the order keys of these messages of which something has returned or is parked.
fn returned_keys(
    connection: &mut SqliteConnection,
    place: &Place,
    fresh: &[Candidate],
    holdings: &mut Holdings,
) -> QueryResult<()> {
    let keys = fresh.iter().filter_map(|one| one.order_key.as_ref());
    let keys: HashSet<&String> = keys
        .filter(|key| !holdings.returned_keys.contains(*key))
        .collect();
    for key in keys {
        let back = returned::table
            .filter(returned::stream.eq(place.stream))
            .filter(returned::key.eq(&place.key))
            .filter(returned::order_key.eq(key));
        let behind = parked::table
            .filter(parked::stream.eq(place.stream))
            .filter(parked::key.eq(&place.key))
            .filter(parked::order_key.eq(key));
        if diesel::select(exists(back).or(exists(behind))).get_result(connection)? {
            holdings.returned_keys.insert(key.clone());
        }
    }
    Ok(())
}

fn delayed(
    connection: &mut SqliteConnection,
    place: &Place,
    now: i64,
    holdings: &mut Holdings,
) -> QueryResult<()> {
    let at = DateTime::from_timestamp_micros(now).unwrap_or_default();
    let keys = holdings.lapsing_keys(at);
    if keys.is_empty() {
        return Ok(());
    }
    let delayed: Vec<(i64, Option<String>)> = returned::table
        .filter(returned::stream.eq(place.stream))
        .filter(returned::key.eq(&place.key))
        .filter(returned::due.gt(now))
        .order(returned::number.desc())
        .select((returned::number, returned::order_key))
        .load(connection)?;
    // Of several the first one stays.
    let delayed = delayed.into_iter();
    holdings.delayed = delayed
        .filter_map(|(number, order_key)| Some((order_key?, number)))
        .filter(|(order_key, _)| keys.contains(order_key))
        .collect();
    Ok(())
}

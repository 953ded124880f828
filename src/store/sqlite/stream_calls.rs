//! The calls of a place: its holdings are read in the one writer, and what [`decide`] decides is written.

use super::connection::SqliteFailure;
use super::runs::VARIABLES;
use super::schema::{
    stream_answers as answers, stream_messages as messages, stream_parked as parked,
    stream_returned as returned, stream_sessions as sessions,
};
use super::stream_candidates::{self, Wanted};
use super::{leases, stream_messages};
use crate::store::rows::{IdColumn, TimeColumn};
use crate::store::streams::decision::{Decision, Verdict};
use crate::store::streams::holdings::{Handed, Holdings, Session};
use crate::store::streams::ledger::decide;
use crate::store::streams::{Call, Called, Place, StreamRules, Which};
use chrono::DateTime;
use diesel::dsl::{exists, max};
use diesel::prelude::*;
use std::collections::{HashMap, HashSet};
use uuid::Uuid;

/// Messages of an order key that may be handed out again at a time.
const PROMOTED: i64 = 10;

/// Does what is asked of a place.
pub(super) fn call(
    connection: &mut SqliteConnection,
    place: &Place,
    call: &Call,
    rules: &StreamRules,
) -> Result<Called, SqliteFailure> {
    let micros = leases::now(connection)?;
    let holdings = load(connection, place, call, rules, micros)?;
    let id = match call {
        Call::Start { .. } => new_session(connection)?,
        _ => 0,
    };
    let now = DateTime::from_timestamp_micros(micros).unwrap_or_default();
    let decision = decide(holdings, call, rules, now, id);
    let row = store(connection, place, &decision, micros)?;
    let messages = match &decision.verdict {
        Verdict::Messages { handed, .. } => stream_messages::bodies(connection, place, handed)?,
        _ => Vec::new(),
    };
    Ok(Called::of(&decision, messages, row))
}

/// A number that no session had before: `AUTOINCREMENT` gives none twice, also after a row was deleted.
fn new_session(connection: &mut SqliteConnection) -> QueryResult<i64> {
    let used: Option<i64> = diesel::sql_query(
        "SELECT seq AS number FROM sqlite_sequence WHERE name = 'stream_sessions'",
    )
    .get_result::<NumberRow>(connection)
    .optional()?
    .map(|row| row.number);
    Ok(used.unwrap_or(0).saturating_add(1))
}

#[derive(QueryableByName)]
struct NumberRow {
    #[diesel(sql_type = diesel::sql_types::BigInt)]
    number: i64,
}

/// The number of the newest answer of a session or a key has the highest one; the cursor is of the key's.
pub(super) fn cursor(
    connection: &mut SqliteConnection,
    stream: i32,
    key: &str,
) -> QueryResult<i64> {
    let newest: Option<i64> = answers::table
        .filter(answers::stream.eq(stream).and(answers::key.eq(key)))
        .order(answers::id.desc())
        .select(answers::cursor)
        .first(connection)
        .optional()?;
    Ok(newest.unwrap_or(0))
}

type AnswerRow = (i64, i32, String, Option<TimeColumn>);

/// The live sessions of a place.
pub(super) fn live(
    connection: &mut SqliteConnection,
    place: &Place,
) -> QueryResult<Vec<(Session, TimeColumn)>> {
    let rows: Vec<(i64, i32, TimeColumn)> = sessions::table
        .filter(sessions::stream.eq(place.stream))
        .filter(sessions::key.eq(&place.key))
        .order(sessions::slot)
        .select((sessions::id, sessions::slot, sessions::started_at))
        .load(connection)?;
    let mut live = Vec::with_capacity(rows.len());
    for (id, slot, started_at) in rows {
        let newest: Option<AnswerRow> = answers::table
            .filter(answers::session.eq(id))
            .order(answers::id.desc())
            .select((
                answers::id,
                answers::n,
                answers::handed,
                answers::expires_at,
            ))
            .first(connection)
            .optional()?;
        let Some((row, n, handed, Some(expires_at))) = newest else {
            continue;
        };
        let handed: Vec<(i64, u32)> = serde_json::from_str(&handed)
            .map_err(|error| diesel::result::Error::DeserializationError(Box::new(error)))?;
        let session = Session {
            id,
            slot: slot.unsigned_abs(),
            row,
            n,
            handed: handed
                .into_iter()
                .map(|(number, deliveries)| Handed {
                    number,
                    deliveries,
                    order_key: None,
                })
                .collect(),
            expires_at: expires_at.0,
        };
        live.push((session, started_at));
    }
    Ok(live)
}

fn load(
    connection: &mut SqliteConnection,
    place: &Place,
    call: &Call,
    rules: &StreamRules,
    now: i64,
) -> QueryResult<Holdings> {
    let live = live(connection, place)?;
    let mut holdings = Holdings {
        cursor: cursor(connection, place.stream, &place.key)?,
        sessions: live.into_iter().map(|(session, _)| session).collect(),
        ..Holdings::default()
    };
    let handed: Vec<i64> = holdings
        .sessions
        .iter()
        .flat_map(|session| session.handed.iter().map(|one| one.number))
        .collect();
    // Order keys count also without an order, for what was parked when there was one.
    if rules.ordered || has_parked(connection, place)? {
        let rows = by_numbers(connection, place, &handed)?.into_iter();
        let keys = rows.map(|(number, order_key, _)| (number, order_key));
        let mut keys: HashMap<i64, Option<String>> = keys.collect();
        for session in &mut holdings.sessions {
            for one in &mut session.handed {
                one.order_key = keys.remove(&one.number).flatten();
            }
        }
    }
    match call {
        Call::Start { limit } | Call::Next { limit, .. } => {
            let at = DateTime::from_timestamp_micros(now).unwrap_or_default();
            let held = match rules.ordered {
                true => holdings.held_by_others(call, at),
                false => HashSet::new(),
            };
            let wanted = Wanted {
                limit: *limit,
                ordered: rules.ordered,
                now,
                held,
            };
            stream_candidates::load(connection, place, wanted, &mut holdings)?;
        }
        Call::Refuse {
            which: Which::Events(ids),
            ..
        } => {
            let ids: HashSet<&Uuid> = ids.iter().collect();
            let rows = by_numbers(connection, place, &handed)?.into_iter();
            let named = rows.filter(|(_, _, event_id)| ids.contains(&event_id.0));
            holdings.named = named.map(|(number, _, _)| number).collect();
        }
        _ => {}
    }
    Ok(holdings)
}

fn has_parked(connection: &mut SqliteConnection, place: &Place) -> QueryResult<bool> {
    let is_parked = parked::table
        .filter(parked::stream.eq(place.stream))
        .filter(parked::key.eq(&place.key));
    diesel::select(exists(is_parked)).get_result(connection)
}

/// A message's number, order key and event.
type MessageRow = (i64, Option<String>, IdColumn);

/// Messages of a place: in parts, since a statement has at most 32,766 variables.
fn by_numbers(
    connection: &mut SqliteConnection,
    place: &Place,
    numbers: &[i64],
) -> QueryResult<Vec<MessageRow>> {
    let mut found: Vec<MessageRow> = Vec::with_capacity(numbers.len());
    for numbers in numbers.chunks(VARIABLES) {
        let rows: Vec<MessageRow> = messages::table
            .filter(messages::stream.eq(place.stream))
            .filter(messages::key.eq(&place.key))
            .filter(messages::number.eq_any(numbers))
            .select((messages::number, messages::order_key, messages::event_id))
            .load(connection)?;
        found.extend(rows);
    }
    Ok(found)
}

/// Writes what was decided, and returns the number of the new row.
fn store(
    connection: &mut SqliteConnection,
    place: &Place,
    decision: &Decision,
    now: i64,
) -> Result<Option<i64>, SqliteFailure> {
    stream_messages::bury(connection, place, &decision.undeliverable)?;
    if !decision.ended.is_empty() {
        diesel::delete(sessions::table.filter(sessions::id.eq_any(&decision.ended)))
            .execute(connection)?;
    }
    if let Some((id, slot)) = decision.begun {
        diesel::insert_into(sessions::table)
            .values((
                sessions::id.eq(id),
                sessions::stream.eq(place.stream),
                sessions::key.eq(&place.key),
                sessions::slot.eq(i32::try_from(slot).unwrap_or(i32::MAX)),
                sessions::started_at.eq(now),
            ))
            .execute(connection)?;
    }
    for numbers in decision.acknowledged.chunks(VARIABLES) {
        let gone = messages::table
            .filter(messages::stream.eq(place.stream))
            .filter(messages::key.eq(&place.key))
            .filter(messages::number.eq_any(numbers));
        diesel::delete(gone).execute(connection)?;
    }
    for numbers in decision.taken.chunks(VARIABLES) {
        let taken = returned::table
            .filter(returned::stream.eq(place.stream))
            .filter(returned::key.eq(&place.key))
            .filter(returned::number.eq_any(numbers));
        diesel::delete(taken).execute(connection)?;
    }
    for one in &decision.returned {
        diesel::insert_into(returned::table)
            .values((
                returned::stream.eq(place.stream),
                returned::key.eq(&place.key),
                returned::number.eq(one.message.number),
                returned::order_key.eq(&one.message.order_key),
                returned::deliveries.eq(i32::try_from(one.message.deliveries).unwrap_or(i32::MAX)),
                returned::due.eq(one.due.timestamp_micros()),
            ))
            .execute(connection)?;
    }
    for one in &decision.parked {
        diesel::insert_into(parked::table)
            .values((
                parked::stream.eq(place.stream),
                parked::key.eq(&place.key),
                parked::order_key.eq(&one.order_key),
                parked::number.eq(one.number),
            ))
            .execute(connection)?;
    }
    let row = match decision.has_row() {
        true => Some(append(connection, place, decision)?),
        false => None,
    };
    if !decision.released.is_empty() && has_parked(connection, place)? {
        for key in &decision.released {
            promote(connection, place, key, now)?;
        }
    }
    Ok(row)
}

fn append(
    connection: &mut SqliteConnection,
    place: &Place,
    decision: &Decision,
) -> Result<i64, SqliteFailure> {
    let answer = decision.answer.as_ref();
    let handed = answer.iter().flat_map(|answer| &answer.handed);
    let handed: Vec<(i64, u32)> = handed.map(|one| (one.number, one.deliveries)).collect();
    let id: i64 = diesel::insert_into(answers::table)
        .values((
            answers::stream.eq(place.stream),
            answers::key.eq(&place.key),
            answers::session.eq(answer.map(|answer| answer.session)),
            answers::n.eq(answer.map_or(0, |answer| answer.n)),
            answers::handed.eq(serde_json::to_string(&handed).unwrap_or_default()),
            answers::cursor.eq(decision.cursor),
            answers::expires_at.eq(answer.map(|answer| answer.expires_at.timestamp_micros())),
        ))
        .returning(answers::id)
        .get_result(connection)?;
    // What this row says anew.
    let answering = answer.map(|answer| answer.session);
    let over = decision.ended.iter().copied().chain(answering);
    let replaced = answers::table
        .filter(answers::stream.eq(place.stream))
        .filter(answers::key.eq(&place.key))
        .filter(answers::id.lt(id))
        .filter(
            answers::session
                .is_null()
                .or(answers::session.eq_any(over))
                .assume_not_null(),
        );
    diesel::delete(replaced).execute(connection)?;
    Ok(id)
}

/// Those of an order key that wait for earlier ones, when none of it is handed out any more. They are due no sooner than
/// the earlier ones.
fn promote(
    connection: &mut SqliteConnection,
    place: &Place,
    key: &str,
    now: i64,
) -> QueryResult<()> {
    let delayed: Option<i64> = returned::table
        .filter(returned::stream.eq(place.stream))
        .filter(returned::key.eq(&place.key))
        .filter(returned::order_key.eq(key))
        .select(max(returned::due))
        .first(connection)?;
    let first: Vec<i64> = parked::table
        .filter(parked::stream.eq(place.stream))
        .filter(parked::key.eq(&place.key))
        .filter(parked::order_key.eq(key))
        .order(parked::number)
        .limit(PROMOTED)
        .select(parked::number)
        .load(connection)?;
    for number in first {
        diesel::delete(parked::table.find((place.stream, &place.key, key, number)))
            .execute(connection)?;
        diesel::insert_into(returned::table)
            .values((
                returned::stream.eq(place.stream),
                returned::key.eq(&place.key),
                returned::number.eq(number),
                returned::order_key.eq(key),
                returned::deliveries.eq(0),
                returned::due.eq(delayed.unwrap_or(now).max(now)),
            ))
            .execute(connection)?;
    }
    Ok(())
}

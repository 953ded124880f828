//! The calls of a place: its holdings are read under its lock, and what [`decide`] decides is written.

use super::prepared::Prepare;
use super::stream_candidates::{self, Wanted};
use super::stream_messages::{self, delete_by_number, found_by_number};
use super::transactions::in_transaction;
use crate::store::rows::TimeColumn;
use crate::store::streams::decision::{Decision, Verdict};
use crate::store::streams::holdings::{Handed, Holdings, Session};
use crate::store::streams::ledger::decide;
use crate::store::streams::{Call, Called, Place, StreamRules, Which};
use chrono::{DateTime, Utc};
use diesel::sql_types::{
    Array, BigInt, Bool, Integer, Nullable, Text, Timestamptz, Uuid as UuidType,
};
use diesel::{QueryResult, sql_query};
use diesel_async::{AsyncPgConnection, RunQueryDsl};
use std::collections::{HashMap, HashSet};

/// Messages of an order key that may be handed out again at a time.
const PROMOTED: i64 = 10;

const LOCK: &str = "SELECT pg_advisory_xact_lock(hashtextextended($2, $1))";

const HOLDINGS: &str = "\
    SELECT place.now, place.id AS cursor_row, coalesce(place.cursor, 0) AS cursor, \
           $3 OR EXISTS (SELECT FROM stream_parked WHERE stream = $1 AND key = $2) AS keyed, \
           session.id AS session, session.slot, session.state_row, session.n, session.numbers, session.deliveries, \
           session.expires_at \
    FROM (SELECT clock_timestamp() AS now, newest.id, newest.cursor \
          FROM (VALUES (1)) AS one LEFT JOIN LATERAL \
               (SELECT id, cursor FROM stream_answers WHERE stream = $1 AND key = $2 \
                ORDER BY id DESC LIMIT 1) AS newest ON true) AS place \
    LEFT JOIN LATERAL ( \
        SELECT s.id, s.slot, a.id AS state_row, a.n, a.numbers, a.deliveries, a.expires_at \
        FROM stream_sessions AS s CROSS JOIN LATERAL \
             (SELECT * FROM stream_answers WHERE session = s.id ORDER BY id DESC LIMIT 1) AS a \
        WHERE s.stream = $1 AND s.key = $2) AS session ON true";

#[derive(diesel::QueryableByName)]
struct HoldingsRow {
    #[diesel(sql_type = Timestamptz)]
    now: TimeColumn,
    #[diesel(sql_type = Nullable<BigInt>)]
    cursor_row: Option<i64>,
    #[diesel(sql_type = BigInt)]
    cursor: i64,
    /// Order keys count: also without an order, for what was parked when there was one.
    #[diesel(sql_type = Bool)]
    keyed: bool,
    #[diesel(sql_type = Nullable<BigInt>)]
    session: Option<i64>,
    #[diesel(sql_type = Nullable<Integer>)]
    slot: Option<i32>,
    #[diesel(sql_type = Nullable<BigInt>)]
    state_row: Option<i64>,
    #[diesel(sql_type = Nullable<Integer>)]
    n: Option<i32>,
    #[diesel(sql_type = Nullable<Array<BigInt>>)]
    numbers: Option<Vec<i64>>,
    #[diesel(sql_type = Nullable<Array<Integer>>)]
    deliveries: Option<Vec<i32>>,
    #[diesel(sql_type = Nullable<Timestamptz>)]
    expires_at: Option<TimeColumn>,
}

impl HoldingsRow {
    fn session(self) -> Option<Session> {
        let numbers = self.numbers?.into_iter().zip(self.deliveries?);
        Some(Session {
            id: self.session?,
            slot: self.slot?.unsigned_abs(),
            row: self.state_row?,
            n: self.n?,
            handed: numbers
                .map(|(number, deliveries)| Handed {
                    number,
                    deliveries: deliveries.unsigned_abs(),
                    order_key: None,
                })
                .collect(),
            expires_at: self.expires_at?.0,
        })
    }
}

const ORDER_KEYS: &str = concat!(
    "SELECT found.number, found.order_key FROM ",
    found_by_number!("stream_messages", "number, order_key", "$3"),
    " WHERE found.order_key IS NOT NULL"
);

#[derive(diesel::QueryableByName)]
pub(super) struct NumberKeyRow {
    #[diesel(sql_type = BigInt)]
    pub(super) number: i64,
    #[diesel(sql_type = Text)]
    pub(super) order_key: String,
}

const NAMED: &str = concat!(
    "SELECT found.number FROM ",
    found_by_number!("stream_messages", "number, event_id", "$3"),
    " WHERE found.event_id = ANY ($4)"
);

#[derive(diesel::QueryableByName)]
struct NumberRow {
    #[diesel(sql_type = BigInt)]
    number: i64,
}

const NEW_SESSION: &str = "SELECT nextval('stream_session_ids') AS number";

/// Does what is asked of a place.
pub(super) async fn call(
    connection: &mut AsyncPgConnection,
    place: &Place,
    call: &Call,
    rules: &StreamRules,
) -> QueryResult<Called> {
    in_transaction(connection, async |connection| {
        of_place(LOCK, place).execute(connection).await?;
        let loaded = load(connection, place, call, rules).await?;
        let id = match call {
            Call::Start { .. } => {
                let next: NumberRow = sql_query(NEW_SESSION)
                    .prepared()
                    .get_result(connection)
                    .await?;
                next.number
            }
            _ => 0,
        };
        let decision = decide(loaded.holdings, call, rules, loaded.now, id);
        let row = store(connection, place, &decision, loaded.replaced, loaded.now).await?;
        let messages = match &decision.verdict {
            Verdict::Messages { handed, .. } => {
                stream_messages::bodies(connection, place, handed).await?
            }
            _ => Vec::new(),
        };
        Ok(Called::of(&decision, messages, row))
    })
    .await
}

fn of_place<'a>(
    statement: &'static str,
    place: &'a Place,
) -> super::prepared::Prepared<
    diesel::query_builder::BoxedSqlQuery<'a, diesel::pg::Pg, diesel::query_builder::SqlQuery>,
> {
    sql_query(statement)
        .into_boxed()
        .bind::<Integer, _>(place.stream)
        .bind::<Text, _>(&place.key)
        .prepared()
}

struct Loaded {
    now: DateTime<Utc>,
    holdings: Holdings,
    replaced: Replaced,
}

/// Rows that say what a new one will say anew.
struct Replaced {
    of_sessions: HashMap<i64, i64>,
    /// The newest of the key, which has the cursor.
    cursor: Option<i64>,
}

async fn load(
    connection: &mut AsyncPgConnection,
    place: &Place,
    call: &Call,
    rules: &StreamRules,
) -> QueryResult<Loaded> {
    let rows: Vec<HoldingsRow> = sql_query(HOLDINGS)
        .bind::<Integer, _>(place.stream)
        .bind::<Text, _>(&place.key)
        .bind::<Bool, _>(rules.ordered)
        .prepared()
        .load(connection)
        .await?;
    let mut holdings = Holdings::default();
    let (mut now, mut cursor_row, mut keyed) = (Utc::now(), None, rules.ordered);
    for row in rows {
        (now, cursor_row, holdings.cursor) = (row.now.0, row.cursor_row, row.cursor);
        keyed = row.keyed;
        holdings.sessions.extend(row.session());
    }
    let replaced = Replaced {
        of_sessions: holdings
            .sessions
            .iter()
            .map(|session| (session.id, session.row))
            .collect(),
        cursor: cursor_row,
    };
    if keyed {
        order_keys(connection, place, &mut holdings).await?;
    }
    match call {
        Call::Start { limit } | Call::Next { limit, .. } => {
            let held = match rules.ordered {
                true => holdings.held_by_others(call, now),
                false => HashSet::new(),
            };
            let wanted = Wanted {
                limit: *limit,
                ordered: rules.ordered,
                now,
                held,
            };
            stream_candidates::load(connection, place, wanted, &mut holdings).await?;
        }
        Call::Refuse {
            which: Which::Events(ids),
            ..
        } => {
            let rows: Vec<NumberRow> = sql_query(NAMED)
                .bind::<Integer, _>(place.stream)
                .bind::<Text, _>(&place.key)
                .bind::<Array<BigInt>, _>(handed_numbers(&holdings))
                .bind::<Array<UuidType>, _>(ids)
                .prepared()
                .load(connection)
                .await?;
            holdings.named = rows.into_iter().map(|row| row.number).collect();
        }
        _ => {}
    }
    Ok(Loaded {
        now,
        holdings,
        replaced,
    })
}

fn handed_numbers(holdings: &Holdings) -> Vec<i64> {
    let sessions = holdings.sessions.iter();
    sessions
        .flat_map(|session| session.handed.iter().map(|one| one.number))
        .collect()
}

async fn order_keys(
    connection: &mut AsyncPgConnection,
    place: &Place,
    holdings: &mut Holdings,
) -> QueryResult<()> {
    let rows: Vec<NumberKeyRow> = sql_query(ORDER_KEYS)
        .bind::<Integer, _>(place.stream)
        .bind::<Text, _>(&place.key)
        .bind::<Array<BigInt>, _>(handed_numbers(holdings))
        .prepared()
        .load(connection)
        .await?;
    let keys: HashMap<i64, String> = rows
        .into_iter()
        .map(|row| (row.number, row.order_key))
        .collect();
    for session in &mut holdings.sessions {
        for one in &mut session.handed {
            one.order_key = keys.get(&one.number).cloned();
        }
    }
    Ok(())
}

const END: &str = "DELETE FROM stream_sessions WHERE id = ANY ($1)";

const STORE: &str = concat!(
    "WITH begun AS ( \
        INSERT INTO stream_sessions (id, stream, key, slot) \
        SELECT $3::bigint, $1, $2, $4::integer WHERE $3 IS NOT NULL \
    ), acknowledged AS ( ",
    delete_by_number!("stream_messages", "$5"),
    "), taken AS ( ",
    delete_by_number!("stream_returned", "$6"),
    "), returned AS ( \
        INSERT INTO stream_returned (stream, key, number, order_key, deliveries, due) \
        SELECT $1, $2, number, order_key, deliveries, due \
        FROM unnest($7::bigint[], $8::text[], $9::integer[], $10::timestamptz[]) \
             AS returned (number, order_key, deliveries, due) \
    ), parked AS ( \
        INSERT INTO stream_parked (stream, key, number, order_key) \
        SELECT $1, $2, number, order_key FROM unnest($19::bigint[], $20::text[]) AS parked (number, order_key) \
    ), replaced AS ( \
        DELETE FROM stream_answers WHERE id = ANY ($11) \
    ), answer AS ( \
        INSERT INTO stream_answers (stream, key, session, n, numbers, deliveries, cursor, expires_at) \
        SELECT $1, $2, $12::bigint, $13::integer, $14::bigint[], $15::integer[], $16::bigint, $17::timestamptz \
        WHERE $18 RETURNING id \
    ) \
    SELECT id AS number FROM answer"
);

/// Those of an order key that wait for earlier ones, when none of it is handed out any more. They are due no sooner than
/// the earlier ones.
const PROMOTE: &str = "\
    WITH first AS MATERIALIZED ( \
        SELECT released.key AS order_key, parked.number, parked.ctid AS place, \
               (SELECT max(due) FROM stream_returned \
                WHERE stream = $1 AND key = $2 AND order_key = released.key) AS due \
        FROM unnest($3::text[]) AS released (key) CROSS JOIN LATERAL ( \
            SELECT number, ctid FROM stream_parked WHERE stream = $1 AND key = $2 AND order_key = released.key \
            ORDER BY number LIMIT $4) AS parked \
    ), gone AS ( \
        DELETE FROM stream_parked WHERE ctid = ANY (ARRAY(SELECT place FROM first)) \
    ) \
    INSERT INTO stream_returned (stream, key, number, order_key, deliveries, due) \
    SELECT $1, $2, number, order_key, 0, greatest($5, due) FROM first";

/// Writes what was decided, and returns the number of the new row.
async fn store(
    connection: &mut AsyncPgConnection,
    place: &Place,
    decision: &Decision,
    replaced: Replaced,
    now: DateTime<Utc>,
) -> QueryResult<Option<i64>> {
    stream_messages::bury(connection, place, &decision.undeliverable).await?;
    if !decision.ended.is_empty() {
        sql_query(END)
            .bind::<Array<BigInt>, _>(&decision.ended)
            .prepared()
            .execute(connection)
            .await?;
    }
    let (returned, parked) = (&decision.returned, &decision.parked);
    let key = |one: &Handed| one.order_key.clone();
    let answer = decision.answer.as_ref();
    let handed = answer.map(|answer| answer.handed.as_slice());
    let handed = handed.unwrap_or_default();
    let row: Option<NumberRow> = {
        let rows: Vec<NumberRow> = sql_query(STORE)
            .bind::<Integer, _>(place.stream)
            .bind::<Text, _>(&place.key)
            .bind::<Nullable<BigInt>, _>(decision.begun.map(|(id, _)| id))
            .bind::<Nullable<Integer>, _>(decision.begun.map(|(_, slot)| count(slot)))
            .bind::<Array<BigInt>, _>(&decision.acknowledged)
            .bind::<Array<BigInt>, _>(&decision.taken)
            .bind::<Array<BigInt>, _>(Vec::from_iter(returned.iter().map(|r| r.message.number)))
            .bind::<Array<Nullable<Text>>, _>(Vec::from_iter(
                returned.iter().map(|one| key(&one.message)),
            ))
            .bind::<Array<Integer>, _>(Vec::from_iter(
                returned.iter().map(|one| count(one.message.deliveries)),
            ))
            .bind::<Array<Timestamptz>, _>(Vec::from_iter(returned.iter().map(|one| one.due)))
            .bind::<Array<BigInt>, _>(replaced.by(decision))
            .bind::<Nullable<BigInt>, _>(answer.map(|answer| answer.session))
            .bind::<Integer, _>(answer.map_or(0, |answer| answer.n))
            .bind::<Array<BigInt>, _>(Vec::from_iter(handed.iter().map(|one| one.number)))
            .bind::<Array<Integer>, _>(Vec::from_iter(
                handed.iter().map(|one| count(one.deliveries)),
            ))
            .bind::<BigInt, _>(decision.cursor)
            .bind::<Nullable<Timestamptz>, _>(answer.map(|answer| answer.expires_at))
            .bind::<Bool, _>(decision.has_row())
            .bind::<Array<BigInt>, _>(Vec::from_iter(parked.iter().map(|one| one.number)))
            .bind::<Array<Text>, _>(Vec::from_iter(
                parked.iter().map(|one| one.order_key.as_str()),
            ))
            .prepared()
            .load(connection)
            .await?;
        rows.into_iter().next()
    };
    if !decision.released.is_empty() {
        sql_query(PROMOTE)
            .bind::<Integer, _>(place.stream)
            .bind::<Text, _>(&place.key)
            .bind::<Array<Text>, _>(&decision.released)
            .bind::<BigInt, _>(PROMOTED)
            .bind::<Timestamptz, _>(now)
            .prepared()
            .execute(connection)
            .await?;
    }
    Ok(row.map(|row| row.number))
}

fn count(number: u32) -> i32 {
    i32::try_from(number).unwrap_or(i32::MAX)
}

impl Replaced {
    /// What the sessions that end and the one that goes on had, and the one with the cursor if it is of no session.
    fn by(&self, decision: &Decision) -> Vec<i64> {
        if !decision.has_row() {
            return Vec::new();
        }
        let answering = decision.answer.as_ref().map(|answer| &answer.session);
        let rows = decision.ended.iter().chain(answering);
        let rows = rows.filter_map(|session| self.of_sessions.get(session).copied());
        let of_session = |row: &i64| self.of_sessions.values().any(|one| one == row);
        rows.chain(self.cursor.filter(|row| !of_session(row)))
            .collect()
    }
}

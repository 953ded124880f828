//! The messages of streams: how they arrive, what collectors get, and those that cannot be delivered.

use super::by_index::by_index;
use super::follower_letters;
use super::pix;
use super::prepared::Prepare;
use super::run_positions;
use crate::store::StoreError;
use crate::store::streams::holdings::Handed;
use crate::store::streams::{Deliver, Delivered, NewMessage, Place, undeliverable};
use diesel::sql_types::{Array, BigInt, Integer, Nullable, Text, Uuid as UuidType};
use diesel::{QueryResult, sql_query};
use diesel_async::{AsyncPgConnection, RunQueryDsl};
use std::collections::HashMap;
use uuid::Uuid;

/// Numbers go on behind the newest message, or behind the cursor if all have gone. No message behind the cursor goes,
/// so this needs no lock of the place.
const APPEND: &str = "\
    WITH t AS MATERIALIZED ( \
        SELECT * FROM unnest($2::text[], $3::text[], $4::uuid[], $5::text[]) \
            WITH ORDINALITY AS t (key, order_key, event_id, body, place) \
    ), last AS MATERIALIZED ( \
        SELECT keys.key, coalesce( \
                   (SELECT number FROM stream_messages AS m \
                    WHERE m.stream = $1 AND m.key = keys.key AND m.number > coalesce(a.cursor, 0) \
                    ORDER BY number DESC LIMIT 1), a.cursor, 0) AS number \
        FROM (SELECT DISTINCT key FROM t) AS keys LEFT JOIN LATERAL \
             (SELECT cursor FROM stream_answers WHERE stream = $1 AND key = keys.key \
              ORDER BY id DESC LIMIT 1) AS a ON true \
    ) \
    INSERT INTO stream_messages (stream, key, number, event_id, order_key, body) \
    SELECT $1, t.key, last.number + row_number() OVER (PARTITION BY t.key ORDER BY t.place), \
           t.event_id, t.order_key, t.body \
    FROM t JOIN last USING (key) ORDER BY t.place";

/// Adds messages to a stream.
pub(in crate::store) async fn deliver(
    connection: &mut AsyncPgConnection,
    deliver: &Deliver,
) -> Result<(), StoreError> {
    deliver_in(connection, deliver)
        .await
        .map_err(StoreError::postgres_read)
}

async fn deliver_in(connection: &mut AsyncPgConnection, deliver: &Deliver) -> QueryResult<()> {
    let new = pix::record(connection, deliver.stream, &deliver.messages).await?;
    let is_new = |message: &&NewMessage| message.pix.is_none() || new.contains(&message.event_id);
    let messages: Vec<&NewMessage> = deliver.messages.iter().filter(is_new).collect();
    if messages.is_empty() {
        return Ok(());
    }
    let keys: Vec<&str> = messages.iter().map(|one| one.key.as_str()).collect();
    let order_keys: Vec<Option<&str>> = messages
        .iter()
        .map(|one| one.order_key.as_deref())
        .collect();
    let ids: Vec<Uuid> = messages.iter().map(|one| one.event_id).collect();
    let bodies: Vec<&str> = messages.iter().map(|one| one.body.as_str()).collect();
    by_index(connection).await?;
    sql_query(APPEND)
        .bind::<Integer, _>(deliver.stream)
        .bind::<Array<Text>, _>(keys)
        .bind::<Array<Nullable<Text>>, _>(order_keys)
        .bind::<Array<UuidType>, _>(ids)
        .bind::<Array<Text>, _>(bodies)
        .prepared()
        .execute(connection)
        .await?;
    Ok(())
}

/// Rows of a place by their numbers, as a list of tables: `wanted` has the numbers and `found` the columns.
///
/// Each number is looked up by itself. For `number = ANY (...)` PostgreSQL may read all that the index has of the key,
/// dead rows included, and drop the other numbers after that, when its statistics say that a key has few messages.
macro_rules! found_by_number {
    ($table:literal, $columns:literal, $numbers:literal) => {
        concat!(
            "unnest(",
            $numbers,
            "::bigint[]) AS wanted (number) CROSS JOIN LATERAL (SELECT ",
            $columns,
            " FROM ",
            $table,
            " WHERE stream = $1 AND key = $2 AND number = wanted.number LIMIT 1) AS found"
        )
    };
}
pub(super) use found_by_number;

/// Deletes rows of a place by their numbers. No row is updated, so it is still where it was found.
macro_rules! delete_by_number {
    ($table:literal, $numbers:literal) => {
        concat!(
            "DELETE FROM ",
            $table,
            " WHERE ctid = ANY (ARRAY(SELECT found.ctid FROM ",
            $crate::store::postgres::stream_messages::found_by_number!($table, "ctid", $numbers),
            "))"
        )
    };
}
pub(super) use delete_by_number;

const BODIES: &str = concat!(
    "SELECT found.number, found.event_id, found.body FROM ",
    found_by_number!("stream_messages", "number, event_id, body", "$3")
);

#[derive(diesel::QueryableByName)]
struct BodyRow {
    #[diesel(sql_type = BigInt)]
    number: i64,
    #[diesel(sql_type = UuidType)]
    event_id: Uuid,
    #[diesel(sql_type = Text)]
    body: String,
}

/// What collectors get of these messages, in their order.
pub(super) async fn bodies(
    connection: &mut AsyncPgConnection,
    place: &Place,
    handed: &[Handed],
) -> QueryResult<Vec<Delivered>> {
    let rows: Vec<BodyRow> = sql_query(BODIES)
        .bind::<Integer, _>(place.stream)
        .bind::<Text, _>(&place.key)
        .bind::<Array<BigInt>, _>(Vec::from_iter(handed.iter().map(|one| one.number)))
        .prepared()
        .load(connection)
        .await?;
    let mut rows: HashMap<i64, BodyRow> = rows.into_iter().map(|row| (row.number, row)).collect();
    let delivered = handed.iter().filter_map(|one| {
        let row = rows.remove(&one.number)?;
        Some(Delivered {
            event_id: row.event_id,
            deliveries: one.deliveries,
            body: row.body,
        })
    });
    Ok(delivered.collect())
}

const NAME: &str = "SELECT name AS word FROM streams WHERE id = $1";

#[derive(diesel::QueryableByName)]
struct WordRow {
    #[diesel(sql_type = Text)]
    word: String,
}

const REMOVE: &str = delete_by_number!("stream_messages", "$3");

/// Turns messages that were handed out too often into dead letters of their stream.
pub(super) async fn bury(
    connection: &mut AsyncPgConnection,
    place: &Place,
    handed: &[Handed],
) -> QueryResult<()> {
    if handed.is_empty() {
        return Ok(());
    }
    let name: WordRow = sql_query(NAME)
        .bind::<Integer, _>(place.stream)
        .get_result(connection)
        .await?;
    let messages = bodies(connection, place, handed).await?;
    let ids: Vec<Uuid> = messages.iter().map(|one| one.event_id).collect();
    let events = run_positions::events(connection, &ids).await?;
    for message in messages {
        let event = events
            .iter()
            .find(|event| event.event_id == message.event_id);
        let position = run_positions::of_event(connection, message.event_id).await?;
        let letter = undeliverable(&name.word, &place.key, &message, event.zip(position));
        follower_letters::insert(connection, letter)
            .await
            .map_err(|error| diesel::result::Error::QueryBuilderError(Box::new(error)))?;
    }
    sql_query(REMOVE)
        .bind::<Integer, _>(place.stream)
        .bind::<Text, _>(&place.key)
        .bind::<Array<BigInt>, _>(Vec::from_iter(handed.iter().map(|one| one.number)))
        .execute(connection)
        .await?;
    Ok(())
}

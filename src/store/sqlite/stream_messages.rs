//! The messages of streams: how they arrive, what collectors get, and those that cannot be delivered.

use super::connection::SqliteFailure;
use super::schema::{stream_messages as messages, streams};
use super::{dead_letters_write, leases, pix, run_positions, stream_calls};
use crate::store::StoreError;
use crate::store::rows::IdColumn;
use crate::store::streams::holdings::Handed;
use crate::store::streams::{Deliver, Delivered, NewMessage, Place, undeliverable};
use diesel::prelude::*;
use std::collections::HashMap;

/// Adds messages to a stream.
pub(in crate::store) fn deliver(
    connection: &mut SqliteConnection,
    deliver: &Deliver,
) -> Result<(), StoreError> {
    deliver_in(connection, deliver).map_err(StoreError::sqlite)
}

fn deliver_in(connection: &mut SqliteConnection, deliver: &Deliver) -> QueryResult<()> {
    let now = leases::now(connection)?;
    let mut last: HashMap<&str, i64> = HashMap::new();
    for message in &deliver.messages {
        if let Some(pix) = &message.pix
            && !pix::record(connection, deliver.stream, message.event_id, pix, now)?
        {
            continue;
        }
        let number = match last.get(message.key.as_str()) {
            Some(number) => *number,
            None => last_number(connection, deliver.stream, message)?,
        }
        .saturating_add(1);
        last.insert(&message.key, number);
        diesel::insert_into(messages::table)
            .values((
                messages::stream.eq(deliver.stream),
                messages::key.eq(&message.key),
                messages::number.eq(number),
                messages::event_id.eq(IdColumn(message.event_id)),
                messages::order_key.eq(&message.order_key),
                messages::body.eq(&message.body),
                messages::since.eq(now),
            ))
            .execute(connection)?;
    }
    Ok(())
}

/// That of the newest message, or the cursor if all have gone.
fn last_number(
    connection: &mut SqliteConnection,
    stream: i32,
    message: &NewMessage,
) -> QueryResult<i64> {
    let newest: Option<i64> = messages::table
        .filter(messages::stream.eq(stream))
        .filter(messages::key.eq(&message.key))
        .order(messages::number.desc())
        .select(messages::number)
        .first(connection)
        .optional()?;
    let cursor = stream_calls::cursor(connection, stream, &message.key)?;
    Ok(newest.unwrap_or(0).max(cursor))
}

/// What collectors get of these messages, in their order.
pub(super) fn bodies(
    connection: &mut SqliteConnection,
    place: &Place,
    handed: &[Handed],
) -> QueryResult<Vec<Delivered>> {
    let mut delivered = Vec::with_capacity(handed.len());
    for one in handed {
        let row: Option<(IdColumn, String)> = messages::table
            .find((place.stream, &place.key, one.number))
            .select((messages::event_id, messages::body))
            .first(connection)
            .optional()?;
        delivered.extend(row.map(|(event_id, body)| Delivered {
            event_id: event_id.0,
            deliveries: one.deliveries,
            body,
        }));
    }
    Ok(delivered)
}

/// Turns messages that were handed out too often into dead letters of their stream.
pub(super) fn bury(
    connection: &mut SqliteConnection,
    place: &Place,
    handed: &[Handed],
) -> Result<(), SqliteFailure> {
    if handed.is_empty() {
        return Ok(());
    }
    let name: String = streams::table
        .find(place.stream)
        .select(streams::name)
        .first(connection)?;
    let mut letters = Vec::with_capacity(handed.len());
    for message in bodies(connection, place, handed)? {
        let event = run_positions::events(connection, &[message.event_id])?.pop();
        let position = run_positions::of_event(connection, message.event_id)?;
        letters.push(undeliverable(
            &name,
            &place.key,
            &message,
            event.as_ref().zip(position),
        ));
    }
    dead_letters_write::insert(connection, letters)?;
    for one in handed {
        diesel::delete(messages::table.find((place.stream, &place.key, one.number)))
            .execute(connection)?;
    }
    Ok(())
}

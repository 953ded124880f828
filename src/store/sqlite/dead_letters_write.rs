//! Changes to the dead letters, inside the writer's transaction.

use super::connection::SqliteFailure;
use super::dead_letters_read;
use super::schema::dead_letters::dsl;
use crate::store::dead_letters::{
    DeadLetter, DeadLetterFilter, DeadLetterOrder, DeadLetterState, Replayed, in_order,
};
use crate::store::{ErrorKind, StoreError};
use chrono::Utc;
use diesel::prelude::*;

/// Ids in one statement.
const IDS: usize = 500;

/// See [`DeadLetterStore::insert`](crate::store::DeadLetterStore::insert).
pub(super) fn insert(
    connection: &mut SqliteConnection,
    letters: Vec<DeadLetter>,
) -> Result<u64, SqliteFailure> {
    let mut changed = 0;
    for letter in in_order(letters) {
        let done = match dead_letters_read::get(connection, letter.id)? {
            None => insert_row(connection, &letter)?,
            Some(mut there) => {
                there.failed_again(letter.failure) && failed_again(connection, &there)?
            }
        };
        changed += u64::from(done);
    }
    Ok(changed)
}

fn insert_row(
    connection: &mut SqliteConnection,
    letter: &DeadLetter,
) -> Result<bool, SqliteFailure> {
    let failure = &letter.failure;
    let inserted = diesel::insert_into(dsl::dead_letters)
        .values((
            dsl::id.eq(letter.id.as_bytes().as_slice()),
            dsl::state.eq(letter.state.as_str()),
            dsl::created_at.eq(letter.created_at.timestamp_micros()),
            dsl::failed_at.eq(failure.at.timestamp_micros()),
            dsl::replayed_at.eq(letter.replayed_at.map(|at| at.timestamp_micros())),
            dsl::replays.eq(integer(letter.replays)),
            dsl::attempts.eq(integer(failure.attempts)),
            dsl::frame.eq(letter.frame),
            dsl::cause.eq(&failure.cause),
            dsl::error.eq(&failure.error),
            dsl::sqlstate.eq(&failure.sqlstate),
            dsl::origin.eq(&letter.origin),
            dsl::event_id.eq(letter.event_id.as_ref().map(|id| id.as_bytes().as_slice())),
            dsl::event_type.eq(&letter.event_type),
            dsl::content_type.eq(&letter.content_type),
            dsl::message_id.eq(&letter.message_id),
            dsl::body.eq(&letter.body),
            dsl::headers.eq(json(&letter.headers)?),
            dsl::history.eq(json(&letter.history)?),
        ))
        .execute(connection)?;
    Ok(inserted == 1)
}

fn failed_again(
    connection: &mut SqliteConnection,
    letter: &DeadLetter,
) -> Result<bool, SqliteFailure> {
    let failure = &letter.failure;
    let updated = diesel::update(dsl::dead_letters.find(letter.id.as_bytes().as_slice()))
        .set((
            dsl::state.eq(letter.state.as_str()),
            dsl::failed_at.eq(failure.at.timestamp_micros()),
            dsl::attempts.eq(integer(failure.attempts)),
            dsl::cause.eq(&failure.cause),
            dsl::error.eq(&failure.error),
            dsl::sqlstate.eq(&failure.sqlstate),
            dsl::history.eq(json(&letter.history)?),
        ))
        .execute(connection)?;
    Ok(updated == 1)
}

/// See [`DeadLetterStore::mark_replayed`](crate::store::DeadLetterStore::mark_replayed).
pub(super) fn mark_replayed(
    connection: &mut SqliteConnection,
    letters: &[Replayed],
) -> Result<(), SqliteFailure> {
    let now = Utc::now().timestamp_micros();
    for sent in letters {
        let id = sent.id.as_bytes().as_slice();
        diesel::update(dsl::dead_letters.find(id))
            .set((
                dsl::replays.eq(dsl::replays + 1),
                dsl::replayed_at.eq(Some(now)),
            ))
            .execute(connection)?;
        // One with another last failure than was read has failed again meanwhile.
        let unchanged = dsl::failed_at.eq(sent.failed_at.timestamp_micros());
        diesel::update(dsl::dead_letters.find(id).filter(unchanged))
            .set(dsl::state.eq(DeadLetterState::Replayed.as_str()))
            .execute(connection)?;
    }
    Ok(())
}

/// See [`DeadLetterStore::purge_letters`](crate::store::DeadLetterStore::purge_letters).
pub(super) fn purge(
    connection: &mut SqliteConnection,
    filter: &DeadLetterFilter,
    limit: usize,
) -> Result<u64, SqliteFailure> {
    let found = dead_letters_read::list(connection, filter, DeadLetterOrder::Oldest, None, limit)?;
    let mut purged = 0;
    for chunk in found.chunks(IDS) {
        let ids: Vec<&[u8]> = chunk.iter().map(|l| l.id.as_bytes().as_slice()).collect();
        let gone = diesel::delete(dsl::dead_letters.filter(dsl::id.eq_any(ids)));
        purged += gone.execute(connection)? as u64;
    }
    Ok(purged)
}

fn integer(number: u32) -> i32 {
    i32::try_from(number).unwrap_or(i32::MAX)
}

fn json(value: &impl serde::Serialize) -> Result<String, SqliteFailure> {
    serde_json::to_string(value).map_err(|error| {
        let message = "a dead letter's JSON cannot be written";
        SqliteFailure(StoreError::new(ErrorKind::Transient, message).with_source(error))
    })
}

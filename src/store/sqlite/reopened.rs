//! Runs with a key that were opened again, until the lane of the key releases them.

use super::leases;
use super::reaction_runs::NEVER;
use super::schema::reaction_queue as queue;
use crate::store::commit_log::Position;
use crate::store::reactions::ReopenedKey;
use diesel::prelude::*;

pub(super) fn keys(
    connection: &mut SqliteConnection,
    reaction: i32,
    after: Position,
    limit: usize,
) -> QueryResult<Vec<ReopenedKey>> {
    let rows: Vec<(i64, Option<String>, Option<String>)> = queue::table
        .filter(queue::reaction.eq(reaction))
        .filter(queue::reopened)
        .filter(queue::position.gt(after.0))
        .order(queue::position)
        .limit(i64::try_from(limit).unwrap_or(i64::MAX))
        .select((queue::position, queue::order_key, queue::unique_key))
        .load(connection)?;
    let key = |(position, order_key, unique_key): (i64, Option<String>, Option<String>)| {
        Some(ReopenedKey {
            position: Position(position),
            key: order_key.or(unique_key)?,
        })
    };
    Ok(rows.into_iter().filter_map(key).collect())
}

/// Releases the runs of these keys.
pub(super) fn release(
    connection: &mut SqliteConnection,
    reaction: i32,
    keys: &[String],
) -> QueryResult<()> {
    for key in keys {
        release_ordered(connection, reaction, key)?;
        release_unique(connection, reaction, key)?;
    }
    Ok(())
}

/// All of an order key at once: the first run of the key is due, unless another one is due or claimed already.
fn release_ordered(connection: &mut SqliteConnection, reaction: i32, key: &str) -> QueryResult<()> {
    let of_key = queue::table
        .filter(queue::reaction.eq(reaction))
        .filter(queue::order_key.eq(key));
    let rows: Vec<(i64, i64, bool)> = of_key
        .order(queue::position)
        .select((queue::position, queue::due, queue::reopened))
        .load(connection)?;
    let is_active = |(_, due, reopened): &(i64, i64, bool)| !reopened && *due < NEVER;
    let is_held = |(_, _, reopened): &(i64, i64, bool)| *reopened;
    let Some((first, due, _)) = rows.first().filter(|_| rows.iter().any(is_held)) else {
        return Ok(());
    };
    diesel::update(of_key.filter(queue::reopened))
        .set((queue::reopened.eq(false), queue::due.eq(NEVER)))
        .execute(connection)?;
    if !rows.iter().any(is_active) {
        let due = match *due {
            NEVER => leases::now(connection)?,
            due => due,
        };
        diesel::update(queue::table.find((reaction, *first)))
            .set(queue::due.eq(due))
            .execute(connection)?;
    }
    Ok(())
}

/// One of a unique key at a time.
fn release_unique(connection: &mut SqliteConnection, reaction: i32, key: &str) -> QueryResult<()> {
    let rows: Vec<(i64, bool)> = queue::table
        .filter(queue::reaction.eq(reaction))
        .filter(queue::unique_key.eq(key))
        .filter(queue::order_key.is_null())
        .order(queue::position)
        .select((queue::position, queue::reopened))
        .load(connection)?;
    if let Some((first, _)) = rows.first()
        && rows.iter().all(|(_, reopened)| *reopened)
    {
        diesel::update(queue::table.find((reaction, *first)))
            .set(queue::reopened.eq(false))
            .execute(connection)?;
    }
    Ok(())
}

//! Commands to followers, and replays that are asked for.

use super::commits::generation;
use super::connection::SqliteFailure;
use super::dead_letters_read;
use super::dead_letters_write;
use super::follower_records::{day, floor, record, store_position};
use super::leases;
use super::read;
use super::schema::{dead_letters as letters, follower_replays as replays, followers};
use crate::store::commit_log::Position;
use crate::store::dead_letters::{DeadLetterState, Replayed};
use crate::store::followers::{Commanded, FollowerCommand, FollowerState, LogState};
use diesel::dsl::exists;
use diesel::prelude::*;
use uuid::Uuid;

pub(super) fn change(
    connection: &mut SqliteConnection,
    name: &str,
    command: FollowerCommand,
) -> Result<Commanded, SqliteFailure> {
    let Some(record) = record(connection, name)? else {
        return Ok(Commanded::Unknown);
    };
    let floor = floor(connection)?;
    let log = LogState {
        generation: generation(connection)?,
        end: Position(read::last_id(connection)?),
        complete_since: day(floor.clone()),
    };
    if let Some(reason) = record.refusal(command, &log) {
        return Ok(Commanded::Refused(reason));
    }
    let now = leases::now(connection)?;
    let target = followers::table.find(name);
    let revised = (
        followers::revision.eq(followers::revision + 1),
        followers::changed_at.eq(now),
    );
    let running = (
        followers::state.eq(FollowerState::Running.as_str()),
        followers::reason.eq(None::<String>),
    );
    match command {
        FollowerCommand::Pause => {
            let paused = (followers::state.eq(FollowerState::Paused.as_str()), revised);
            diesel::update(target).set(paused).execute(connection)?;
        }
        FollowerCommand::Resume => {
            let complete_since = match record.state {
                FollowerState::Gapped => floor,
                _ => record.complete_since.map(|day| day.to_string()),
            };
            diesel::update(target)
                .set((
                    running,
                    followers::complete_since.eq(complete_since),
                    revised,
                ))
                .execute(connection)?;
        }
        FollowerCommand::Rebuild { .. } => {
            diesel::update(target)
                .set((running, followers::rebuild.eq(true), revised))
                .execute(connection)?;
        }
        FollowerCommand::Skip(to) => {
            diesel::update(target).set(revised).execute(connection)?;
            store_position(connection, name, record.n.saturating_add(1), to, 0)?;
        }
        FollowerCommand::Remove => {
            // What waited to be applied again was not.
            let waiting = replays::table
                .filter(replays::follower.eq(name))
                .select(replays::letter);
            diesel::update(letters::table.filter(letters::id.eq_any(waiting)))
                .set(letters::state.eq(DeadLetterState::Dead.as_str()))
                .execute(connection)?;
            diesel::delete(target).execute(connection)?;
        }
    }
    Ok(Commanded::Done)
}

pub(super) fn request(
    connection: &mut SqliteConnection,
    letters: &[Replayed],
) -> Result<Vec<Uuid>, SqliteFailure> {
    let now = leases::now(connection)?;
    let mut requested = Vec::new();
    for sent in letters {
        let Some(letter) = dead_letters_read::get(connection, sent.id)? else {
            continue;
        };
        let follower = followers::table.find(&letter.origin);
        let current = letter.cause().is_of_follower()
            && letter.state == DeadLetterState::Dead
            && letter.failure.at == sent.failed_at
            && diesel::select(exists(follower)).get_result::<bool>(connection)?;
        let position = letter
            .headers
            .get("position")
            .and_then(|text| text.as_str());
        let (true, Some(position)) = (current, position.and_then(|text| text.parse::<i64>().ok()))
        else {
            continue;
        };
        diesel::insert_or_ignore_into(replays::table)
            .values((
                replays::letter.eq(letter.id.as_bytes().as_slice()),
                replays::follower.eq(&letter.origin),
                replays::position.eq(position),
                replays::event.eq(String::from_utf8_lossy(&letter.body).into_owned()),
                replays::requested_at.eq(now),
            ))
            .execute(connection)?;
        dead_letters_write::mark_replayed(connection, &[*sent])?;
        requested.push(letter.id);
    }
    Ok(requested)
}

//! Commands to followers.

use super::commits::{end, generation};
use super::follower_records::{floor, records};
use super::listen::FOLLOWERS;
use super::schema::followers;
use crate::store::followers::{Commanded, FollowerCommand, FollowerState, LogState};
use diesel::prelude::*;
use diesel::sql_types::{BigInt, Text};
use diesel_async::{AnsiTransactionManager, AsyncPgConnection, RunQueryDsl, TransactionManager};

pub(super) async fn change(
    connection: &mut AsyncPgConnection,
    name: &str,
    command: FollowerCommand,
) -> QueryResult<Commanded> {
    AnsiTransactionManager::begin_transaction(connection).await?;
    let done = change_in(connection, name, command).await;
    match done {
        Ok(Commanded::Done) => AnsiTransactionManager::commit_transaction(connection).await?,
        _ => AnsiTransactionManager::rollback_transaction(connection).await?,
    }
    done
}

async fn change_in(
    connection: &mut AsyncPgConnection,
    name: &str,
    command: FollowerCommand,
) -> QueryResult<Commanded> {
    // A step refers to the row while it is under way; only a removal has to wait for it.
    let locked = followers::table.find(name).select(followers::name);
    let known: Option<String> = match command {
        FollowerCommand::Remove => locked.for_update().first(connection).await,
        _ => locked.for_no_key_update().first(connection).await,
    }
    .optional()?;
    if known.is_none() {
        return Ok(Commanded::Unknown);
    }
    let Some(record) = records(connection, Some(name)).await?.pop() else {
        return Ok(Commanded::Unknown);
    };
    let floor = floor(connection).await?;
    let log = LogState {
        generation: generation(connection).await?,
        end: end(connection).await?,
        complete_since: floor,
    };
    if let Some(reason) = record.refusal(command, &log) {
        return Ok(Commanded::Refused(reason));
    }
    let target = followers::table.find(name);
    let revised = (
        followers::revision.eq(followers::revision + 1),
        followers::changed_at.eq(diesel::dsl::now),
    );
    match command {
        FollowerCommand::Pause => {
            let paused = (followers::state.eq(FollowerState::Paused.as_str()), revised);
            diesel::update(target)
                .set(paused)
                .execute(connection)
                .await?;
        }
        FollowerCommand::Resume => {
            let complete_since = match record.state {
                FollowerState::Gapped => floor,
                _ => record.complete_since,
            };
            let running = (
                followers::state.eq(FollowerState::Running.as_str()),
                followers::reason.eq(None::<String>),
                followers::complete_since.eq(complete_since),
                revised,
            );
            diesel::update(target)
                .set(running)
                .execute(connection)
                .await?;
        }
        FollowerCommand::Rebuild { .. } => {
            let rebuild = (
                followers::state.eq(FollowerState::Running.as_str()),
                followers::reason.eq(None::<String>),
                followers::rebuild.eq(true),
                revised,
            );
            diesel::update(target)
                .set(rebuild)
                .execute(connection)
                .await?;
        }
        FollowerCommand::Skip(to) => {
            diesel::update(target)
                .set(revised)
                .execute(connection)
                .await?;
            while diesel::sql_query(SKIP)
                .bind::<Text, _>(name)
                .bind::<BigInt, _>(to.0)
                .execute(connection)
                .await?
                == 0
            {}
        }
        FollowerCommand::Remove => {
            diesel::sql_query(TAKE_BACK)
                .bind::<Text, _>(name)
                .execute(connection)
                .await?;
            diesel::delete(target).execute(connection).await?;
        }
    }
    notify(connection).await?;
    Ok(Commanded::Done)
}

/// What waited to be applied again was not.
const TAKE_BACK: &str = "\
    UPDATE dead_letters SET state = 'dead' \
    WHERE id IN (SELECT letter FROM follower_replays WHERE follower = $1)";

/// Beside a step that is under way the number is taken, and the next one is free after it.
const SKIP: &str = "\
    INSERT INTO follower_positions (follower, n, position) \
    SELECT $1, n + 1, greatest(position, $2) FROM follower_positions WHERE follower = $1 \
    ORDER BY n DESC LIMIT 1 ON CONFLICT DO NOTHING";

pub(super) async fn notify(connection: &mut AsyncPgConnection) -> QueryResult<()> {
    diesel::sql_query(format!("NOTIFY eclusa_log, '{FOLLOWERS}'"))
        .execute(connection)
        .await?;
    Ok(())
}

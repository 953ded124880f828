//! Dead letters of followers, which are written in the transaction of a step, and so through diesel.

use super::dead_letters_read;
use super::dead_letters_write::{FAILED_AGAIN, INSERT, integer, json};
use crate::store::StoreError;
use crate::store::dead_letters::{DeadLetter, in_order};
use diesel::sql_types::{self, Binary, Bool, Integer, Nullable, Text, Timestamptz};
use diesel_async::{AsyncPgConnection, RunQueryDsl};

/// Inserts the letter, or, if its id is there already, the failure: see
/// [`DeadLetterStore::insert`](crate::store::DeadLetterStore::insert).
pub(super) async fn insert(
    connection: &mut AsyncPgConnection,
    letter: DeadLetter,
) -> Result<(), StoreError> {
    let Some(letter) = in_order(vec![letter]).pop() else {
        return Ok(());
    };
    let failed = StoreError::postgres_read;
    let earlier = dead_letters_read::get(connection, letter.id)
        .await
        .map_err(failed)?;
    let done = if let Some(mut earlier) = earlier {
        if !earlier.failed_again(letter.failure) {
            return Ok(());
        }
        diesel::sql_query(FAILED_AGAIN)
            .bind::<sql_types::Uuid, _>(earlier.id)
            .bind::<Text, _>(earlier.state.as_str())
            .bind::<Timestamptz, _>(earlier.failure.at)
            .bind::<Integer, _>(integer(earlier.failure.attempts))
            .bind::<Text, _>(&earlier.failure.cause)
            .bind::<Text, _>(&earlier.failure.error)
            .bind::<Nullable<Text>, _>(&earlier.failure.sqlstate)
            .bind::<Text, _>(json(&earlier.history)?)
            .execute(connection)
            .await
    } else {
        diesel::sql_query(INSERT)
            .bind::<sql_types::Uuid, _>(letter.id)
            .bind::<Text, _>(letter.state.as_str())
            .bind::<Timestamptz, _>(letter.created_at)
            .bind::<Timestamptz, _>(letter.failure.at)
            .bind::<Nullable<Timestamptz>, _>(letter.replayed_at)
            .bind::<Integer, _>(integer(letter.replays))
            .bind::<Integer, _>(integer(letter.failure.attempts))
            .bind::<Bool, _>(letter.frame)
            .bind::<Text, _>(&letter.failure.cause)
            .bind::<Text, _>(&letter.failure.error)
            .bind::<Nullable<Text>, _>(&letter.failure.sqlstate)
            .bind::<Text, _>(&letter.origin)
            .bind::<Nullable<sql_types::Uuid>, _>(letter.event_id)
            .bind::<Nullable<Text>, _>(&letter.event_type)
            .bind::<Nullable<Text>, _>(&letter.content_type)
            .bind::<Nullable<Text>, _>(&letter.message_id)
            .bind::<Binary, _>(&letter.body)
            .bind::<Text, _>(json(&letter.headers)?)
            .bind::<Text, _>(json(&letter.history)?)
            .execute(connection)
            .await
    };
    done.map(drop).map_err(failed)
}

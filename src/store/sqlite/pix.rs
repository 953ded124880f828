//! Pix messages as rows: their parties, and one row per `endToEndId`.

use super::schema::{clients, follower_replays as replays, pix_messages, streams};
use crate::event::id::of_follower_letter;
use crate::event::pix::{Party, PixMessage};
use crate::store::rows::IdColumn;
use crate::store::streams::follower_name;
use diesel::dsl::exists;
use diesel::prelude::*;
use uuid::Uuid;

/// Records a Pix message. Whether it is to be delivered.
pub(super) fn record(
    connection: &mut SqliteConnection,
    stream: i32,
    event_id: Uuid,
    message: &PixMessage,
    now: i64,
) -> QueryResult<bool> {
    let payer = client(connection, &message.payer)?;
    let receiver = client(connection, &message.receiver)?;
    let new = diesel::insert_or_ignore_into(pix_messages::table)
        .values((
            pix_messages::end_to_end_id.eq(&message.end_to_end_id),
            pix_messages::event_id.eq(IdColumn(event_id)),
            pix_messages::payer_id.eq(payer),
            pix_messages::receiver_id.eq(receiver),
            pix_messages::amount_cents.eq(message.amount.0),
            pix_messages::free_text.eq(&message.free_text),
            pix_messages::tx_id.eq(&message.tx_id),
            pix_messages::paid_at.eq(message.paid_at.timestamp_micros()),
            pix_messages::recorded_at.eq(now),
        ))
        .execute(connection)?;
    Ok(new > 0 || is_replayed(connection, stream, event_id, message)?)
}

/// Whether a message is there already because of the same event, whose dead letter is replayed. Without a replay it is
/// an event that comes anew after the retention has removed the first one.
fn is_replayed(
    connection: &mut SqliteConnection,
    stream: i32,
    event_id: Uuid,
    message: &PixMessage,
) -> QueryResult<bool> {
    let own: IdColumn = pix_messages::table
        .filter(pix_messages::end_to_end_id.eq(&message.end_to_end_id))
        .select(pix_messages::event_id)
        .first(connection)?;
    if own.0 != event_id {
        return Ok(false);
    }
    let name: String = streams::table
        .find(stream)
        .select(streams::name)
        .first(connection)?;
    let letter = of_follower_letter(&follower_name(&name), event_id);
    let waits = replays::table.find(letter.as_bytes().to_vec());
    diesel::select(exists(waits)).get_result(connection)
}

fn client(connection: &mut SqliteConnection, party: &Party) -> QueryResult<i64> {
    let known: Option<i64> = clients::table
        .filter(clients::ispb.eq(&party.ispb))
        .filter(clients::branch.eq(&party.branch))
        .filter(clients::account.eq(&party.account))
        .filter(clients::account_type.eq(&party.account_type))
        .filter(clients::document.eq(&party.document))
        .filter(clients::name.eq(&party.name))
        .select(clients::id)
        .first(connection)
        .optional()?;
    if let Some(id) = known {
        return Ok(id);
    }
    diesel::insert_into(clients::table)
        .values((
            clients::name.eq(&party.name),
            clients::document.eq(&party.document),
            clients::ispb.eq(&party.ispb),
            clients::branch.eq(&party.branch),
            clients::account.eq(&party.account),
            clients::account_type.eq(&party.account_type),
        ))
        .returning(clients::id)
        .get_result(connection)
}

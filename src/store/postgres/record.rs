//! Recording an event inside the caller's own transaction.

use crate::store::record::RecordedEvent;
use diesel::QueryResult;
use diesel::sql_types::{Nullable, Text, Timestamptz, Uuid as UuidType};
use diesel_async::{AsyncPgConnection, RunQueryDsl};
use uuid::Uuid;

const RECORD: &str = "\
    SELECT eclusa_record(event_type => $1, event_data => $2::jsonb, user_id => $3, \
                         session_id => $4, event_id => $5, occurred_at => $6, producer => $7) AS id";

#[derive(diesel::QueryableByName)]
struct RecordedRow {
    #[diesel(sql_type = UuidType)]
    id: Uuid,
}

/// Records an event in the transaction that is open on this connection, or in one of its own, and
/// returns its id. The connection may be any that the application has to Eclusa's database; the schema
/// must be on its `search_path`.
///
/// # Errors
/// The database's; among them an explicit UUIDv7 of a day that the log has no partition for.
pub async fn record(
    connection: &mut AsyncPgConnection,
    event: &RecordedEvent,
) -> QueryResult<Uuid> {
    let row: RecordedRow = diesel::sql_query(RECORD)
        .bind::<Text, _>(&event.event_type)
        .bind::<Text, _>(event.event_data.get())
        .bind::<Nullable<Text>, _>(&event.user_id)
        .bind::<Nullable<Text>, _>(&event.session_id)
        .bind::<Nullable<UuidType>, _>(event.event_id)
        .bind::<Nullable<Timestamptz>, _>(event.occurred_at)
        .bind::<Text, _>(&event.producer)
        .get_result(connection)
        .await?;
    Ok(row.id)
}

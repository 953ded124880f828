//! Recording an event inside the caller's own transaction.

use super::connection::SqliteFailure;
use super::write;
use crate::store::record::RecordedEvent;
use diesel::result::Error;
use diesel::{QueryResult, SqliteConnection};
use uuid::Uuid;

/// Records an event in the transaction that is open on this connection, or in one of its own, and
/// returns its id. The connection may be any that the application has to Eclusa's file.
///
/// # Errors
/// The database's, and a text with U+0000.
pub fn record(connection: &mut SqliteConnection, event: &RecordedEvent) -> QueryResult<Uuid> {
    let event = event.to_event();
    write::insert(connection, std::slice::from_ref(&event))
        .map_err(|SqliteFailure(error)| Error::QueryBuilderError(Box::new(error)))?;
    Ok(event.event_id)
}

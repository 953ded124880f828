//! Queries on the dead letters.

use super::schema::dead_letters::dsl;
use crate::store::dead_letters::{
    DeadLetter, DeadLetterFilter, DeadLetterOrder, DeadLetterPosition, DeadLetterSummary,
};
use crate::store::queries;
use crate::store::rows::{DeadLetterRow, DeadLetterSummaryRow};
use diesel::prelude::*;
use uuid::Uuid;

/// The dead letter of this id.
pub(super) fn get(connection: &mut SqliteConnection, id: Uuid) -> QueryResult<Option<DeadLetter>> {
    let row = queries::dead_letter!(id).first::<DeadLetterRow>(connection);
    row.optional()?.map(TryInto::try_into).transpose()
}

/// See [`DeadLetterStore::list_letters`](crate::store::DeadLetterStore::list_letters).
pub(super) fn list(
    connection: &mut SqliteConnection,
    filter: &DeadLetterFilter,
    order: DeadLetterOrder,
    after: Option<DeadLetterPosition>,
    limit: usize,
) -> QueryResult<Vec<DeadLetterSummary>> {
    let rows = queries::dead_letter_page!(filter, order, after, limit)
        .load::<DeadLetterSummaryRow>(connection)?;
    Ok(rows.into_iter().map(Into::into).collect())
}

/// How many pass the filter.
pub(super) fn count(
    connection: &mut SqliteConnection,
    filter: &DeadLetterFilter,
) -> QueryResult<u64> {
    let count: i64 = queries::count_dead_letters!(filter).get_result(connection)?;
    Ok(count.unsigned_abs())
}

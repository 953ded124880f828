//! Queries on the dead letters, through diesel.

use super::schema::dead_letters::dsl;
use crate::store::dead_letters::{
    DeadLetter, DeadLetterFilter, DeadLetterOrder, DeadLetterPosition, DeadLetterSummary,
};
use crate::store::queries;
use crate::store::rows::{DeadLetterRow, DeadLetterSummaryRow};
use diesel::prelude::*;
use diesel_async::{AsyncPgConnection, RunQueryDsl};
use uuid::Uuid;

/// The dead letter of this id.
pub(super) async fn get(
    connection: &mut AsyncPgConnection,
    id: Uuid,
) -> QueryResult<Option<DeadLetter>> {
    let row = queries::dead_letter!(id).first::<DeadLetterRow>(connection);
    row.await.optional()?.map(TryInto::try_into).transpose()
}

/// See [`DeadLetterStore::list_letters`](crate::store::DeadLetterStore::list_letters).
pub(super) async fn list(
    connection: &mut AsyncPgConnection,
    filter: &DeadLetterFilter,
    order: DeadLetterOrder,
    after: Option<DeadLetterPosition>,
    limit: usize,
) -> QueryResult<Vec<DeadLetterSummary>> {
    let rows = queries::dead_letter_page!(filter, order, after, limit)
        .load::<DeadLetterSummaryRow>(connection)
        .await?;
    Ok(rows.into_iter().map(Into::into).collect())
}

/// How many pass the filter.
pub(super) async fn count(
    connection: &mut AsyncPgConnection,
    filter: &DeadLetterFilter,
) -> QueryResult<u64> {
    let count: i64 = queries::count_dead_letters!(filter)
        .get_result(connection)
        .await?;
    Ok(count.unsigned_abs())
}

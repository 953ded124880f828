//! The insert: fixed numbers of rows per prepared statement, inside the writer's transaction.

use super::connection::SqliteFailure;
use super::follower_records::read_types;
use super::read;
use super::schema::{follower_declarations as declarations, followers};
use crate::event::Event;
use crate::store::awaited::AwaitedTypes;
use crate::store::content::conflicts;
use crate::store::followers::FollowerKind;
use crate::store::{ErrorKind, RowOutcome, StoreError};
use diesel::query_builder::{AstPass, QueryFragment, QueryId};
use diesel::sql_types::{BigInt, Binary, Bool, Nullable, SmallInt, Text};
use diesel::sqlite::Sqlite;
use diesel::{ExpressionMethods, JoinOnDsl, QueryDsl, QueryResult, RunQueryDsl, SqliteConnection};
use std::collections::HashSet;

/// Rows per statement. Measured: fewer cost more calls, more gain nothing.
const ROWS: usize = 16;

/// An insert of `N` rows. Its text depends on `N` alone, so diesel finds the prepared statement by
/// the type, without writing the text out again.
struct Insert<'a, const N: usize> {
    rows: &'a [Event],
    times: [(i64, i64); N],
    processed: [bool; N],
}

impl<'a, const N: usize> Insert<'a, N> {
    fn of(rows: &'a [Event], awaited: &AwaitedTypes) -> Self {
        let (mut times, mut processed) = ([(0, 0); N], [true; N]);
        for (processed, event) in processed.iter_mut().zip(rows) {
            *processed = !awaited.has(&event.event_type);
        }
        for (time, event) in times.iter_mut().zip(rows) {
            *time = (
                event.occurred_at().timestamp_micros(),
                event.received_at.timestamp_micros(),
            );
        }
        Self {
            rows,
            times,
            processed,
        }
    }
}

impl<const N: usize> QueryId for Insert<'_, N> {
    type QueryId = Insert<'static, N>;
    const HAS_STATIC_QUERY_ID: bool = true;
}

impl<const N: usize> QueryFragment<Sqlite> for Insert<'_, N> {
    fn walk_ast<'b>(&'b self, mut out: AstPass<'_, 'b, Sqlite>) -> QueryResult<()> {
        out.push_sql(
            "INSERT INTO user_interactions (event_id, \"timestamp\", received_at, processed, \
             source, producer, event_type, user_id, session_id, original_id, event_data, \
             schema_version) VALUES ",
        );
        let columns = self.times.iter().zip(&self.processed);
        for (place, (event, ((occurred_at, received_at), processed))) in
            self.rows.iter().zip(columns).enumerate()
        {
            out.push_sql(if place == 0 { "(" } else { ", (" });
            out.push_bind_param::<Binary, _>(event.event_id.as_bytes().as_slice())?;
            out.push_sql(", ");
            out.push_bind_param::<BigInt, _>(occurred_at)?;
            out.push_sql(", ");
            out.push_bind_param::<BigInt, _>(received_at)?;
            out.push_sql(", ");
            out.push_bind_param::<Bool, _>(processed)?;
            out.push_sql(", ");
            out.push_bind_param::<Text, _>(event.source.as_str())?;
            out.push_sql(", ");
            out.push_bind_param::<Text, _>(&*event.producer)?;
            out.push_sql(", ");
            out.push_bind_param::<Text, _>(&event.event_type)?;
            out.push_sql(", ");
            out.push_bind_param::<Nullable<Text>, _>(&event.user_id)?;
            out.push_sql(", ");
            out.push_bind_param::<Nullable<Text>, _>(&event.session_id)?;
            out.push_sql(", ");
            out.push_bind_param::<Nullable<Text>, _>(&event.original_id)?;
            out.push_sql(", ");
            out.push_bind_param::<Text, _>(event.event_data.get())?;
            out.push_sql(", ");
            out.push_bind_param::<Nullable<SmallInt>, _>(&event.schema_version)?;
            out.push_sql(")");
        }
        out.push_sql(" ON CONFLICT (event_id) DO NOTHING");
        Ok(())
    }
}

impl<const N: usize> RunQueryDsl<SqliteConnection> for Insert<'_, N> {}

/// Inserts the rows, in their order, and says of each what became of it.
pub(super) fn insert(
    connection: &mut SqliteConnection,
    rows: &[Event],
) -> Result<Vec<RowOutcome>, SqliteFailure> {
    if rows.iter().any(has_nul) {
        let message = "SQLite refuses the data: a text contains U+0000";
        return Err(StoreError::new(ErrorKind::Poison, message).into());
    }
    let last_before = read::last_id(connection)?;
    let awaited = awaited(connection)?;
    let mut inserted = 0;
    let (chunks, rest) = rows.as_chunks::<ROWS>();
    for chunk in chunks {
        inserted += Insert::<ROWS>::of(chunk, &awaited).execute(connection)?;
    }
    for row in rest {
        inserted += Insert::<1>::of(std::slice::from_ref(row), &awaited).execute(connection)?;
    }
    if inserted == rows.len() {
        return Ok(vec![RowOutcome::Stored; inserted]);
    }
    // SQLite only counts what it inserted. Ids grow, so what is new has one above the last. One row
    // at a time, since the stored payloads may be far larger than the batch.
    let mut seen = HashSet::new();
    rows.iter()
        .map(|event| {
            let stored = read::get(connection, event.event_id)?;
            let new = stored
                .as_ref()
                .is_some_and(|stored| stored.id > last_before);
            if seen.insert(event.event_id) && new {
                return Ok(RowOutcome::Stored);
            }
            let conflicting = stored.is_some_and(|stored| conflicts(event, &stored));
            Ok(RowOutcome::Duplicate { conflicting })
        })
        .collect()
}

/// The types that reactions are declared for.
fn awaited(connection: &mut SqliteConnection) -> QueryResult<AwaitedTypes> {
    let declared: Vec<String> = followers::table
        .inner_join(declarations::table.on(declarations::follower.eq(followers::name)))
        .filter(followers::kind.eq(FollowerKind::Reaction.as_str()))
        .select(declarations::types)
        .distinct()
        .load(connection)?;
    let mut types = Vec::new();
    for declared in declared {
        types.extend(read_types(&declared)?);
    }
    let awaited = AwaitedTypes::default();
    awaited.set(types);
    Ok(awaited)
}

/// Whether a text of the event contains U+0000, which PostgreSQL cannot keep: both stores refuse
/// the same events, so that one can take over from the other.
fn has_nul(event: &Event) -> bool {
    let optional = [&event.user_id, &event.session_id, &event.original_id];
    event.event_type.contains('\0')
        || event.producer.contains('\0')
        || optional
            .into_iter()
            .flatten()
            .any(|text| text.contains('\0'))
        || has_escaped_nul(event.event_data.get())
}

/// Whether a JSON text has `\u0000` where the backslash is not itself escaped.
fn has_escaped_nul(json: &str) -> bool {
    json.match_indices("\\u0000").any(|(at, _)| {
        let before = json.as_bytes().get(..at).unwrap_or_default();
        let backslashes = before.iter().rev().take_while(|byte| **byte == b'\\');
        backslashes.count() % 2 == 0
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_real_nul_is_seen() {
        assert!(has_escaped_nul(r#"{"a":"\u0000"}"#));
        assert!(has_escaped_nul(r#"{"a":"\\\u0000"}"#));
        assert!(!has_escaped_nul(r#"{"a":"\\u0000"}"#));
        assert!(!has_escaped_nul(
            r#"{"a":"\u00001"}"#.replace("0000", "0001").as_str()
        ));
    }
}

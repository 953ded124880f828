//! How full the pages of the log's partitions are written.
//!
//! The mark `processed` of an event that a reaction awaits is set by an update. A page with room for the new version of
//! a row takes it without a change to any index; otherwise the update costs several times as much, and the
//! indexes grow. Where most events are updated, pages are written half full, which takes no more space than two
//! versions of each row do; where few are, that would double the log for nothing. So it follows what was seen.

use super::partitions;
use crate::store::StoreError;
use chrono::{DateTime, Days, NaiveDate, Utc};
use tokio_postgres::Client;

/// How full pages are, in percent, where few rows are updated, and where most are.
const FULL: i64 = 85;
const HALF: i64 = 50;
/// Fewer rows than this say nothing.
const ENOUGH: i64 = 10_000;

const SEEN: &str = "\
    SELECT coalesce(sum(n_tup_ins), 0)::bigint, coalesce(sum(n_tup_upd), 0)::bigint \
    FROM pg_stat_user_tables WHERE relid = to_regclass($1) OR relid = to_regclass($2)";

/// Partitions of this day and later that are written otherwise.
const OTHERS: &str = "\
    SELECT c.relname::text FROM pg_inherits AS i JOIN pg_class AS c ON c.oid = i.inhrelid \
    WHERE i.inhparent = 'user_interactions'::regclass AND c.relname >= $1 AND c.relname ~ '_[0-9]{8}$' \
      AND NOT 'fillfactor=' || $2::text = ANY (coalesce(c.reloptions, '{}')) \
    ORDER BY c.relname";

/// What follows from the rows of the last days; `None` if nothing does.
fn percent(inserted: i64, updated: i64) -> Option<i64> {
    if inserted < ENOUGH {
        return None;
    }
    // What lies between stays as it is, so that it does not change back and forth.
    match updated.saturating_mul(100) / inserted {
        50.. => Some(HALF),
        ..25 => Some(FULL),
        _ => None,
    }
}

/// Adapts the partitions of today and the days after it to what was seen yesterday and today. Only pages that are
/// begun from then on differ.
pub(super) async fn adapt(client: &mut Client, now: DateTime<Utc>) -> Result<(), StoreError> {
    let today = now.date_naive();
    let yesterday = today
        .checked_sub_days(Days::new(1))
        .unwrap_or(NaiveDate::MIN);
    let (today, yesterday) = (partitions::name(today), partitions::name(yesterday));
    let seen = client.query_one(SEEN, &[&today, &yesterday]).await?;
    let Some(percent) = percent(seen.try_get(0)?, seen.try_get(1)?) else {
        return Ok(());
    };
    for row in client
        .query(OTHERS, &[&today, &percent.to_string()])
        .await?
    {
        let name: String = row.try_get(0)?;
        // Waits for no vacuum: the next round comes.
        let alter = format!(
            "SET LOCAL lock_timeout = '100ms'; ALTER TABLE {name} SET (fillfactor = {percent})"
        );
        client.simple_query(&alter).await?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_are_half_full_where_most_rows_are_updated() {
        assert_eq!(percent(9_999, 9_999), None);
        assert_eq!(percent(10_000, 5_000), Some(HALF));
        assert_eq!(percent(10_000, 4_000), None);
        assert_eq!(percent(10_000, 2_000), Some(FULL));
    }
}

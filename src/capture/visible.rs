//! Which transactions a statement on the captured server sees.

use super::CaptureError;
use std::collections::HashSet;
use tokio_postgres::Client;

/// The transactions that a statement sees: `pg_current_snapshot()`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Visible {
    /// All transactions from this one on are invisible.
    end: u64,
    /// Earlier ones that were under way.
    open: Vec<u64>,
}

impl Visible {
    /// Those that the next statement of this session sees, or its open transaction if that keeps its snapshot.
    ///
    /// # Errors
    /// The server cannot be asked.
    pub(super) async fn ask(client: &Client) -> Result<Self, CaptureError> {
        let row = client
            .query_one("SELECT pg_current_snapshot()::text", &[])
            .await?;
        Self::parse(row.try_get(0)?)
            .ok_or_else(|| CaptureError::unreadable("a snapshot in another form"))
    }

    fn parse(text: &str) -> Option<Self> {
        let mut parts = text.split(':');
        let (_, end, open) = (parts.next()?, parts.next()?, parts.next()?);
        let open = open.split(',').filter(|number| !number.is_empty());
        Some(Self {
            end: end.parse().ok()?,
            open: open
                .map(|number| number.parse().ok())
                .collect::<Option<_>>()?,
        })
    }

    /// Whether changes of this transaction, known by its lower 32 bits, were not seen.
    pub(super) fn misses(&self, xid: u32) -> bool {
        let lower = |number: &u64| *number as u32 == xid;
        // Of two numbers on a circle the later one is less than half a turn ahead.
        let behind_end = xid.wrapping_sub(self.end as u32) < 1 << 31;
        behind_end || self.open.iter().any(lower)
    }
}

/// Transactions that an earlier stream may have had, and that no statement sees yet: a server that replicates
/// synchronously sends what is committed in its log, and shows it when its standbys have it, too. Those that are in
/// progress are taken for such.
///
/// # Errors
/// The server cannot be asked.
pub(super) async fn in_doubt(client: &Client) -> Result<HashSet<u32>, CaptureError> {
    let row = client
        .query_one(
            "SELECT current_setting('synchronous_standby_names') <> ''",
            &[],
        )
        .await?;
    if !row.try_get::<_, bool>(0)? {
        return Ok(HashSet::new());
    }
    // What is in progress is listed below the newest transaction that has ended, which is this one.
    client
        .batch_execute("BEGIN; SELECT pg_current_xact_id(); ROLLBACK")
        .await?;
    let visible = Visible::ask(client).await?;
    Ok(visible.open.iter().map(|number| *number as u32).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_reading_saw_is_told_by_the_lower_bits() {
        let visible = Visible::parse("10:20:12,15").unwrap();
        let missed: Vec<u32> = (8..23).filter(|xid| visible.misses(*xid)).collect();
        assert_eq!(missed, [12, 15, 20, 21, 22]);
        let visible = Visible::parse("4294967290:4294967300:").unwrap();
        let around = [4_294_967_289, 4_294_967_295, 3, 4, 5];
        assert_eq!(
            around.map(|xid| visible.misses(xid)),
            [false, false, false, true, true]
        );
        assert_eq!(Visible::parse("1:2"), None);
    }
}

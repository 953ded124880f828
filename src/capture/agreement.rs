//! Whether the captured tables are published as they were when the capture last looked. Changes of a table that was
//! dropped and made anew, or taken out of the publication for a time, are missing in the stream, and
//! nothing in the stream says so: such a table is read again.

use super::CaptureError;
use super::catalog::publication::entries;
use super::catalog::{CapturedTable, names_of};
use super::params::Wanted;
use super::state::{CaptureState, StoredState, TableSnapshot};
use crate::store::CaptureStore;
use std::collections::{BTreeMap, HashMap};
use tokio_postgres::Client;

/// The entries of the publication before it was brought into order, and after.
pub(super) struct Published {
    before: HashMap<u32, u32>,
    after: HashMap<u32, u32>,
}

impl Published {
    /// The entries as they are before `ensure`, and what it makes of them.
    ///
    /// # Errors
    /// Those of the server and of `ensure`.
    pub(super) async fn around<T>(
        client: &Client,
        publication: &str,
        ensure: impl Future<Output = Result<T, CaptureError>>,
    ) -> Result<Self, CaptureError> {
        let before = entries(client, publication).await?;
        ensure.await?;
        let after = entries(client, publication).await?;
        Ok(Self { before, after })
    }

    /// Those of a publication that was just made.
    ///
    /// # Errors
    /// The server's.
    pub(super) async fn fresh(client: &Client, publication: &str) -> Result<Self, CaptureError> {
        let after = entries(client, publication).await?;
        let before = after.clone();
        Ok(Self { before, after })
    }
}

impl Wanted {
    /// Tables that were added to the settings are read, those of which changes may be missing are read again, and those that
    /// left are forgotten.
    pub(super) async fn agree_on_tables(
        &self,
        (store, token): (&dyn CaptureStore, i64),
        stored: &mut StoredState,
        tables: &BTreeMap<String, CapturedTable>,
        published: &Published,
    ) -> Result<bool, CaptureError> {
        let mut state = stored.state.clone();
        state.tables.retain(|name, _| tables.contains_key(name));
        for (name, table) in tables {
            let is_known = state.tables.contains_key(name);
            let new = || match self.snapshot {
                true => TableSnapshot::requested(),
                false => TableSnapshot::left_out(),
            };
            let snapshot = state.tables.entry(name.clone()).or_insert_with(new);
            let entry = published.after.get(&table.oid).copied();
            let is_other = snapshot.entry.is_some() && snapshot.entry != entry;
            if is_other || is_known && !published.before.contains_key(&table.oid) {
                tracing::error!(
                    capture = stored.name,
                    table = name,
                    "changes of a table may be missing, since it was made anew or was not in the publication as it has to be; \
                     it is read again"
                );
                *snapshot = TableSnapshot::requested();
            }
            snapshot.entry = entry;
        }
        if state == stored.state {
            return Ok(true);
        }
        Ok(stored.store(store, token, state).await?)
    }
}

/// Whether a captured table has another name by now, is gone, or is not published as it was.
///
/// # Errors
/// The server's.
pub(super) async fn are_altered(
    client: &Client,
    tables: &BTreeMap<String, CapturedTable>,
    state: &CaptureState,
) -> Result<bool, CaptureError> {
    let published = entries(client, &state.publication).await?;
    let oids: Vec<u32> = tables.values().map(|table| table.oid).collect();
    let names = names_of(client, &oids).await?;
    Ok(tables.iter().any(|(name, table)| {
        let entry = state.tables.get(name).and_then(|snapshot| snapshot.entry);
        published.get(&table.oid).copied() != entry || names.get(&table.oid) != Some(name)
    }))
}

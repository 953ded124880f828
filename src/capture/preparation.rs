//! What must hold before a capture reads its slot: the server, the tables, the publication and the slot are as the
//! capture left them, or are made.

use super::agreement::Published;
use super::catalog::server::{self, ServerIdentity};
use super::catalog::{CapturedTable, TableName, look_at, publication, slot};
use super::params::{CaptureParams, Wanted};
use super::state::{CaptureOrder, CaptureState, StoredState, TableSnapshot};
use super::{CaptureDatabase, CaptureError, CaptureFault, Lsn, Relation, TableShape};
use crate::store::CaptureStore;
use crate::supervision::failpoint;
use std::collections::BTreeMap;
use tokio_postgres::Client;

/// A capture that can begin to read.
pub(super) struct Prepared {
    pub(super) client: Client,
    pub(super) identity: ServerIdentity,
    pub(super) tables: BTreeMap<String, CapturedTable>,
    pub(super) start: Lsn,
}

/// What came of a preparation.
pub(super) enum Preparation {
    Ready(Box<Prepared>),
    /// It has stopped, or was told to.
    Stopped,
    /// Another process has changed the state meanwhile.
    Overtaken,
}

impl Wanted {
    /// Makes ready what is to be read.
    ///
    /// # Errors
    /// The captured database's and the store's. Where only a new snapshot helps there is no error: the capture stops.
    pub(super) async fn prepare(
        &self,
        database: &CaptureDatabase,
        store: &dyn CaptureStore,
        token: i64,
        stored: &mut StoredState,
    ) -> Result<Preparation, CaptureError> {
        if stored.state.stopped.is_some() && stored.state.order == CaptureOrder::Run {
            return Ok(Preparation::Stopped);
        }
        let client = database.connect().await?;
        let mut replication = database.connect_replication().await?;
        let identity = ServerIdentity::ask(&mut replication).await?;
        drop(replication);
        if stored.state.order == CaptureOrder::Drop {
            if drop_own(&client, database.name()?, &identity, &stored.state).await? {
                publication::remove(&client, &stored.state.publication).await?;
            }
            return dropped(store, token, stored).await;
        }
        server::check(&client).await?;
        let mut tables = BTreeMap::new();
        for (name, rules) in &self.tables {
            let table = look_at(&client, name).await?;
            // A rule that names no column is found before anything is written.
            TableShape::of_table(&table, rules)?;
            tables.insert(name.to_string(), table);
        }
        let begins = !stored.exists()
            || stored.state.order == CaptureOrder::Renew
            || stored.state.position.is_none();
        let (start, published) = if begins {
            let place = (&client, database.name()?, &identity);
            let start = self.begin(place, &tables, (store, token), stored).await?;
            (start, Published::fresh(&client, &self.publication).await?)
        } else {
            match self
                .go_on(&client, database, &identity, &stored.state)
                .await?
            {
                Ok(start) => {
                    let listed = listed(&tables);
                    let ensure = publication::ensure(&client, &self.publication, &listed);
                    let published = Published::around(&client, &self.publication, ensure);
                    (Some(start), published.await?)
                }
                Err(reason) => {
                    let state = CaptureState {
                        stopped: Some(reason.clone()),
                        ..stored.state.clone()
                    };
                    if !stored.store(store, token, state).await? {
                        return Ok(Preparation::Overtaken);
                    }
                    tracing::error!(capture = stored.name, reason, "a capture has stopped");
                    return Ok(Preparation::Stopped);
                }
            }
        };
        let Some(start) = start else {
            return Ok(Preparation::Overtaken);
        };
        let place = (store, token);
        let agreed = self.agree_on_tables(place, stored, &tables, &published);
        if !agreed.await? {
            return Ok(Preparation::Overtaken);
        }
        Ok(Preparation::Ready(Box::new(Prepared {
            client,
            identity,
            tables,
            start,
        })))
    }

    /// Makes publication and slot anew. The state says first that a slot is being made: one that is found after a crash is
    /// then known as this capture's.
    async fn begin(
        &self,
        (client, database, identity): (&Client, &str, &ServerIdentity),
        tables: &BTreeMap<String, CapturedTable>,
        (store, token): (&dyn CaptureStore, i64),
        stored: &mut StoredState,
    ) -> Result<Option<Lsn>, CaptureError> {
        if drop_own(client, database, identity, &stored.state).await?
            && stored.state.publication != self.publication
        {
            publication::remove(client, &stored.state.publication).await?;
        }
        if slot::find(client, &self.slot).await?.is_some() {
            return Err(slot::foreign(&self.slot));
        }
        let snapshot = || match self.snapshot || stored.exists() {
            true => TableSnapshot::requested(),
            false => TableSnapshot::left_out(),
        };
        let making = CaptureState {
            system: identity.system.to_string(),
            slot: self.slot.clone(),
            publication: self.publication.clone(),
            tables: tables
                .keys()
                .map(|name| (name.clone(), snapshot()))
                .collect(),
            ..CaptureState::default()
        };
        if !stored.store(store, token, making.clone()).await? {
            return Ok(None);
        }
        publication::ensure(client, &self.publication, &listed(tables)).await?;
        let start = slot::create(client, &self.slot).await?;
        failpoint::hit("capture.slot_made");
        let made = CaptureState {
            position: Some(start.to_string()),
            timeline: identity.timelines.of(start),
            ..making
        };
        let stored = stored.store(store, token, made).await?;
        tracing::info!(slot = self.slot, %start, "the slot of a capture is made");
        Ok(stored.then_some(start))
    }

    /// Where to go on, or why that is impossible.
    async fn go_on(
        &self,
        client: &Client,
        database: &CaptureDatabase,
        identity: &ServerIdentity,
        state: &CaptureState,
    ) -> Result<Result<Lsn, String>, CaptureError> {
        let advice = "take a new snapshot: eclusa capture resnapshot";
        let position = state.lsn().unwrap_or_default();
        if state.system != identity.system.to_string() {
            return Ok(Err(format!(
                "the server is another one (system identifier {}, and it was {}); {advice}",
                identity.system, state.system
            )));
        }
        // The log of a stream is on the server's disk before it is sent.
        if identity.wal_end < position || identity.timelines.of(position) != state.timeline {
            return Ok(Err(format!(
                "the server was failed over or restored to a place before {position}, up to which changes were \
                 captured; {advice}"
            )));
        }
        if state.slot != self.slot {
            return Ok(Err(format!(
                "the settings name the slot {}, and the capture reads {}; {advice}",
                self.slot, state.slot
            )));
        }
        let Some(found) = slot::find(client, &self.slot).await? else {
            return Ok(Err(format!(
                "the slot {} is missing: it was dropped, or did not survive a fail-over, so changes are missing; \
                 {advice}",
                self.slot
            )));
        };
        if let Err(error) = found.check(&self.slot, database.name()?) {
            return Ok(Err(format!("{error}; {advice}")));
        }
        match found.confirmed_flush_lsn {
            Some(confirmed) if confirmed > position => Ok(Err(format!(
                "the slot {} is at {confirmed}, and changes were captured only up to {position}: it is another one's, \
                 was made anew, or advanced by another client; {advice}",
                self.slot
            ))),
            _ => Ok(Ok(position)),
        }
    }
}

/// Drops the slot of a capture, unless it has none on this server, or the slot of that name is another one's by now: of
/// another database, or ahead of what was captured. `false` if so; the publication of that name is another one's then, too.
async fn drop_own(
    client: &Client,
    database: &str,
    identity: &ServerIdentity,
    state: &CaptureState,
) -> Result<bool, CaptureError> {
    if state.slot.is_empty() || state.system != identity.system.to_string() {
        return Ok(false);
    }
    if let Some(found) = slot::find(client, &state.slot).await? {
        // Of one that is being made the state does not know the place.
        let is_ahead = state.lsn().is_some() && found.confirmed_flush_lsn > state.lsn();
        if is_ahead || !found.is_of(database) {
            return Ok(false);
        }
    }
    slot::drop_slot(client, &state.slot).await?;
    Ok(true)
}

/// Notes that a capture has no slot.
async fn dropped(
    store: &dyn CaptureStore,
    token: i64,
    stored: &mut StoredState,
) -> Result<Preparation, CaptureError> {
    let state = CaptureState {
        order: CaptureOrder::Run,
        slot: String::new(),
        position: None,
        stopped: Some(
            "its slot was dropped by command; eclusa capture resnapshot begins again".to_owned(),
        ),
        ..stored.state.clone()
    };
    Ok(match stored.store(store, token, state).await? {
        true => Preparation::Stopped,
        false => Preparation::Overtaken,
    })
}

fn listed(tables: &BTreeMap<String, CapturedTable>) -> Vec<CapturedTable> {
    tables.values().cloned().collect()
}

impl Prepared {
    /// The name of a captured table.
    pub(super) fn name_of(&self, table: &str) -> Option<TableName> {
        let found = self.tables.get(table)?;
        Some(TableName {
            schema: found.schema.clone(),
            name: found.name.clone(),
        })
    }

    /// The shape of a table's rows in the stream. The table is looked at again, since it may have changed; one that is gone
    /// by now is as it was last.
    pub(super) async fn shape_of(
        &mut self,
        relation: &Relation,
        params: &CaptureParams,
    ) -> Result<TableShape, CaptureError> {
        let name = format!("{}.{}", relation.schema, relation.name);
        let table = match name.parse() {
            Ok(wanted) => look_at(&self.client, &wanted).await,
            Err(reason) => Err(CaptureError::operator(CaptureFault::Table, reason)),
        };
        let known: Option<&CapturedTable> = self.tables.get(&name);
        let table = match (table, known) {
            (Ok(table), _) => table,
            (Err(error), Some(known)) if error.fault() == CaptureFault::Table => known.clone(),
            (Err(error), _) => return Err(error),
        };
        let shape = TableShape::of_relation(relation, &table, &params.rules(&name))?;
        self.tables.insert(name, table);
        Ok(shape)
    }
}

//! The publication of a capture: the tables whose changes the slot's stream delivers.

use super::CapturedTable;
use crate::capture::{CaptureError, CaptureFault};
use postgres_protocol::escape::escape_identifier;
use std::collections::HashMap;
use tokio_postgres::{Client, Row};

/// What was done to a publication.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PublicationChange {
    None,
    Created,
    /// Its tables or its options were others.
    Changed,
}

/// What the publication must publish.
const OPTIONS: &str =
    "publish = 'insert, update, delete, truncate', publish_via_partition_root = true";

/// Makes the publication publish exactly these tables.
///
/// # Errors
/// It publishes all tables of the database, or the user owns neither it nor the tables.
pub async fn ensure(
    client: &Client,
    publication: &str,
    tables: &[CapturedTable],
) -> Result<PublicationChange, CaptureError> {
    let name = escape_identifier(publication);
    let list: Vec<String> = tables.iter().map(published).collect();
    let list = list.join(", ");
    let found = client
        .query_opt(
            "SELECT oid, puballtables, pubinsert AND pubupdate AND pubdelete AND pubtruncate AND pubviaroot AS options \
             FROM pg_publication WHERE pubname = $1",
            &[&publication],
        )
        .await?;
    let Some(found) = found else {
        let command = format!("CREATE PUBLICATION {name} FOR TABLE {list} WITH ({OPTIONS})");
        run(client, &command, "cannot make the publication").await?;
        return Ok(PublicationChange::Created);
    };
    if found.try_get("puballtables")? {
        return Err(CaptureError::operator(
            CaptureFault::Other,
            format!(
                "the publication {publication} exists and publishes all tables, which cannot be changed; drop it, or \
                 give the capture another name"
            ),
        ));
    }
    let oid: u32 = found.try_get("oid")?;
    let mut commands = Vec::new();
    if !found.try_get::<_, bool>("options")? {
        commands.push(format!("ALTER PUBLICATION {name} SET ({OPTIONS})"));
    }
    if !publishes(client, oid, tables).await? {
        commands.push(format!("ALTER PUBLICATION {name} SET TABLE {list}"));
    }
    if commands.is_empty() {
        return Ok(PublicationChange::None);
    }
    // Several commands in one message are one transaction.
    run(
        client,
        &commands.join("; "),
        "cannot change the publication",
    )
    .await?;
    Ok(PublicationChange::Changed)
}

/// Whether these tables and no others are published, whole.
async fn publishes(
    client: &Client,
    publication: u32,
    tables: &[CapturedTable],
) -> Result<bool, CaptureError> {
    // Row filters, lists of columns and whole schemas came with 15; the columns of their catalogs are read as JSON, so
    // that an older server has none.
    let rows = client
        .query(
            "SELECT prrelid, to_jsonb(r) ->> 'prqual' IS NULL AND to_jsonb(r) ->> 'prattrs' IS NULL AS whole \
             FROM pg_publication_rel r WHERE prpubid = $1",
            &[&publication],
        )
        .await?;
    let mut published: Vec<u32> = Vec::new();
    for row in rows {
        if !row.try_get::<_, bool>("whole")? {
            return Ok(false);
        }
        published.push(row.try_get("prrelid")?);
    }
    let mut wanted: Vec<u32> = tables.iter().map(|table| table.oid).collect();
    published.sort_unstable();
    wanted.sort_unstable();
    Ok(published == wanted && !publishes_schemas(client, publication).await?)
}

/// The tables that the publication publishes whole and with all their changes, by OID: the number of each one's entry. A
/// table that was taken out and added again has another one.
///
/// # Errors
/// The database's.
pub async fn entries(
    client: &Client,
    publication: &str,
) -> Result<HashMap<u32, u32>, CaptureError> {
    let rows = client
        .query(
            "SELECT r.prrelid, r.oid FROM pg_publication_rel r JOIN pg_publication p ON p.oid = r.prpubid \
             WHERE p.pubname = $1 AND pubinsert AND pubupdate AND pubdelete AND pubtruncate AND pubviaroot \
             AND to_jsonb(r) ->> 'prqual' IS NULL AND to_jsonb(r) ->> 'prattrs' IS NULL",
            &[&publication],
        )
        .await?;
    let entry = |row: &Row| Ok((row.try_get("prrelid")?, row.try_get("oid")?));
    rows.iter().map(entry).collect()
}

async fn publishes_schemas(client: &Client, publication: u32) -> Result<bool, CaptureError> {
    let known = client
        .query_one(
            "SELECT to_regclass('pg_catalog.pg_publication_namespace') IS NOT NULL",
            &[],
        )
        .await?;
    if !known.try_get::<_, bool>(0)? {
        return Ok(false);
    }
    let some = client
        .query_one(
            "SELECT EXISTS (SELECT FROM pg_publication_namespace WHERE pnpubid = $1)",
            &[&publication],
        )
        .await?;
    Ok(some.try_get(0)?)
}

/// Drops the publication, if it is there and the user owns it. One that the owner of the tables has made stays: it keeps
/// nothing on the server.
///
/// # Errors
/// The database's.
pub async fn remove(client: &Client, publication: &str) -> Result<(), CaptureError> {
    let owned = client
        .query_one(
            "SELECT EXISTS (SELECT FROM pg_publication WHERE pubname = $1 AND pg_has_role(pubowner, 'USAGE'))",
            &[&publication],
        )
        .await?;
    if !owned.try_get::<_, bool>(0)? {
        return Ok(());
    }
    let command = format!(
        "DROP PUBLICATION IF EXISTS {}",
        escape_identifier(publication)
    );
    run(client, &command, "cannot drop the publication").await
}

/// A table in a publication's list. Tables that inherit from it are tables of their own.
fn published(table: &CapturedTable) -> String {
    let only = if table.partitioned { "" } else { "ONLY " };
    let (schema, name) = (
        escape_identifier(&table.schema),
        escape_identifier(&table.name),
    );
    format!("{only}{schema}.{name}")
}

async fn run(client: &Client, command: &str, context: &str) -> Result<(), CaptureError> {
    let done = client.batch_execute(command).await;
    done.map_err(|error| CaptureError::from(error).context(context))
}

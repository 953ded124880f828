//! A table of a capture, and whether it can be captured.

use super::own::own_table;
use super::types::kinds;
use crate::capture::message::ReplicaIdentity;
use crate::capture::value::ValueKind;
use crate::capture::{CaptureError, CaptureFault};
use std::collections::HashMap;
use std::fmt;
use std::str::FromStr;
use tokio_postgres::{Client, Row};

/// A table by name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TableName {
    pub schema: String,
    pub name: String,
}

impl fmt::Display for TableName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.schema, self.name)
    }
}

/// `schema.table`, in the spelling of the catalog, without quotes.
impl FromStr for TableName {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.split_once('.') {
            Some((schema, name)) if !schema.is_empty() && !name.is_empty() => Ok(Self {
                schema: schema.to_owned(),
                name: name.to_owned(),
            }),
            _ => Err(format!(
                "{text:?} is not a table with its schema, such as \"public.product\""
            )),
        }
    }
}

/// A column of a [`CapturedTable`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TableColumn {
    pub name: String,
    pub type_oid: u32,
    pub type_modifier: i32,
}

/// A table of a capture, as the catalog describes it.
#[derive(Debug, Clone)]
pub struct CapturedTable {
    pub oid: u32,
    pub schema: String,
    pub name: String,
    pub partitioned: bool,
    pub identity: ReplicaIdentity,
    /// Without generated columns, which are not replicated.
    pub columns: Vec<TableColumn>,
    /// The columns of the primary key, in its order.
    pub key: Vec<String>,
    /// The kinds of the types that are not built in.
    pub types: HashMap<u32, ValueKind>,
}

impl CapturedTable {
    /// What the JSON of a type of its columns looks like.
    pub fn kind_of(&self, type_oid: u32) -> ValueKind {
        ValueKind::of_builtin(type_oid)
            .or_else(|| self.types.get(&type_oid).cloned())
            .unwrap_or_default()
    }
}

/// Looks at a table, and whether it can be captured.
///
/// # Errors
/// It is not there, cannot be captured as it is, or the user may not read it; the words say what to do.
pub async fn look_at(client: &Client, table: &TableName) -> Result<CapturedTable, CaptureError> {
    let refused = |reason: &str| {
        CaptureError::operator(CaptureFault::Table, format!("the table {table} {reason}"))
    };
    let found = client
        .query_opt(FIND, &[&table.schema, &table.name])
        .await?
        .ok_or_else(|| refused("does not exist in the captured database"))?;
    let letter = |column: &str| Ok::<u8, CaptureError>(found.try_get::<_, i8>(column)? as u8);
    let partitioned = match letter("relkind")? {
        b'r' => false,
        b'p' => true,
        b'v' | b'm' => return Err(refused("is a view; capture the tables that it reads")),
        b'f' => return Err(refused("is a foreign table; capture it where its rows are")),
        _ => return Err(refused("is no table")),
    };
    match letter("relpersistence")? {
        b'u' => {
            return Err(refused(
                "is unlogged, so its changes are not in the log; ALTER TABLE ... SET LOGGED",
            ));
        }
        b't' => return Err(refused("is temporary")),
        _ => {}
    }
    if let Some(reason) = own_table(client, table).await? {
        return Err(refused(&reason));
    }
    let oid: u32 = found.try_get("oid")?;
    if !found.try_get::<_, bool>("readable")? {
        return Err(CaptureError::operator(
            CaptureFault::NoRight,
            format!(
                "the user {} may not read the table {table}; GRANT USAGE ON SCHEMA {} TO {0}; GRANT SELECT ON {table} \
                 TO {0}",
                found.try_get::<_, String>("me")?,
                table.schema,
            ),
        ));
    }
    let identity = identity(&found, oid, client).await?;
    let identity = identity.map_err(refused_identity(table))?;
    let key = key(client, oid).await?;
    let Some((key, immediate)) = key else {
        return Err(refused(
            "has no primary key, by which a row is known; add one: ALTER TABLE ... ADD PRIMARY KEY (...)",
        ));
    };
    if !immediate && identity == ReplicaIdentity::Default {
        return Err(refused(
            "has a deferrable primary key, which cannot be its replica identity; make it not deferrable, or ALTER \
             TABLE ... REPLICA IDENTITY FULL",
        ));
    }
    let columns = columns(client, oid).await?;
    if let Some(generated) = key
        .iter()
        .find(|name| !columns.iter().any(|column| column.name == **name))
    {
        return Err(refused(&format!(
            "has the generated column {generated:?} in its primary key, which is not replicated"
        )));
    }
    let oids: Vec<u32> = columns.iter().map(|column| column.type_oid).collect();
    Ok(CapturedTable {
        oid,
        schema: table.schema.clone(),
        name: table.name.clone(),
        partitioned,
        identity,
        types: kinds(client, oids).await?,
        columns,
        key,
    })
}

const FIND: &str = "SELECT c.oid, c.relkind, c.relpersistence, c.relreplident, current_user::text AS me, \
     has_schema_privilege(n.oid, 'USAGE') AND has_table_privilege(c.oid, 'SELECT') AS readable \
     FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE n.nspname = $1 AND c.relname = $2";

/// What the log keeps of old rows, or what keeps it from that. Of a partitioned table the partitions decide.
async fn identity(
    found: &Row,
    oid: u32,
    client: &Client,
) -> Result<Result<ReplicaIdentity, (String, u8)>, CaptureError> {
    let own = found.try_get::<_, i8>("relreplident")? as u8;
    if let Some(identity) = accepted(own) {
        let partitions = client
            .query(
                "SELECT c.oid::regclass::text AS name, c.relreplident FROM pg_partition_tree($1::oid::regclass) p \
                 JOIN pg_class c ON c.oid = p.relid WHERE p.isleaf AND c.oid <> $1::oid \
                 AND c.relreplident NOT IN ('d', 'f') LIMIT 1",
                &[&oid],
            )
            .await?;
        return match partitions.first() {
            Some(wrong) => Ok(Err((
                format!(
                    " has the partition {}, which",
                    wrong.try_get::<_, String>("name")?
                ),
                wrong.try_get::<_, i8>("relreplident")? as u8,
            ))),
            None => Ok(Ok(identity)),
        };
    }
    Ok(Err((String::new(), own)))
}

fn accepted(letter: u8) -> Option<ReplicaIdentity> {
    ReplicaIdentity::parse(letter)
        .filter(|identity| matches!(identity, ReplicaIdentity::Default | ReplicaIdentity::Full))
}

fn refused_identity(table: &TableName) -> impl Fn((String, u8)) -> CaptureError {
    move |(whose, letter)| {
        let identity = match letter {
            b'n' => "NOTHING, so the log does not say which row was changed",
            _ => "USING INDEX, so the log does not have the primary key of a deleted row",
        };
        let message = format!(
            "the table {table}{whose} has REPLICA IDENTITY {identity}; ALTER TABLE ... REPLICA IDENTITY DEFAULT, or \
             FULL for records with the old row"
        );
        CaptureError::operator(CaptureFault::Table, message)
    }
}

/// The names of these tables, with their schemas, as far as they are there.
///
/// # Errors
/// The database's.
pub async fn names_of(client: &Client, oids: &[u32]) -> Result<HashMap<u32, String>, CaptureError> {
    let rows = client
        .query(
            "SELECT c.oid, n.nspname || '.' || c.relname AS name FROM pg_class c \
             JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.oid = ANY ($1)",
            &[&oids],
        )
        .await?;
    let name = |row: &Row| Ok((row.try_get("oid")?, row.try_get("name")?));
    rows.iter().map(name).collect()
}

/// The schemas of the operators by which the primary key is ordered, behind `pg_catalog`: a search path.
pub async fn operator_schemas(client: &Client, oid: u32) -> Result<String, CaptureError> {
    const SCHEMAS: &str = "\
        SELECT concat_ws(', ', 'pg_catalog', string_agg(DISTINCT quote_ident(n.nspname), ', ')) \
        FROM pg_index i CROSS JOIN LATERAL unnest(i.indclass) AS c (oid) JOIN pg_opclass o ON o.oid = c.oid \
        JOIN pg_amop a ON a.amopfamily = o.opcfamily AND a.amoplefttype = o.opcintype \
            AND a.amoprighttype = o.opcintype AND a.amopstrategy = 5 \
        JOIN pg_operator p ON p.oid = a.amopopr JOIN pg_namespace n ON n.oid = p.oprnamespace \
        WHERE i.indrelid = $1 AND i.indisprimary AND n.nspname <> 'pg_catalog'";
    Ok(client.query_one(SCHEMAS, &[&oid]).await?.try_get(0)?)
}

/// The columns of the primary key in its order, and whether it is checked at once.
async fn key(client: &Client, oid: u32) -> Result<Option<(Vec<String>, bool)>, CaptureError> {
    let rows = client
        .query(
            "SELECT a.attname::text, i.indimmediate FROM pg_index i \
             CROSS JOIN LATERAL unnest(i.indkey) WITH ORDINALITY AS k (attnum, place) \
             JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = k.attnum \
             WHERE i.indrelid = $1 AND i.indisprimary AND k.place <= i.indnkeyatts ORDER BY k.place",
            &[&oid],
        )
        .await?;
    let Some(first) = rows.first() else {
        return Ok(None);
    };
    let immediate = first.try_get("indimmediate")?;
    let names = rows.iter().map(|row| row.try_get("attname"));
    Ok(Some((names.collect::<Result<_, _>>()?, immediate)))
}

async fn columns(client: &Client, oid: u32) -> Result<Vec<TableColumn>, CaptureError> {
    let rows = client
        .query(
            "SELECT attname::text, atttypid, atttypmod FROM pg_attribute \
             WHERE attrelid = $1 AND attnum > 0 AND NOT attisdropped AND attgenerated = '' ORDER BY attnum",
            &[&oid],
        )
        .await?;
    let column = |row: &Row| {
        Ok(TableColumn {
            name: row.try_get("attname")?,
            type_oid: row.try_get("atttypid")?,
            type_modifier: row.try_get("atttypmod")?,
        })
    };
    rows.iter().map(column).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_is_named_with_its_schema() {
        let name: TableName = "public.Product v2".parse().unwrap();
        assert_eq!((&*name.schema, &*name.name), ("public", "Product v2"));
        for wrong in ["product", ".product", "public.", ""] {
            assert!(wrong.parse::<TableName>().is_err(), "{wrong}");
        }
    }
}

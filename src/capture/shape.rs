//! The shape of a captured table: its columns, its key, and what is left out or masked.

use super::catalog::CapturedTable;
use super::message::{ColumnText, ReplicaIdentity, Tuple};
use super::value::ValueKind;
use super::{CaptureError, CaptureFault, Relation};
use bytes::Bytes;
use postgres_protocol::escape::escape_identifier;
use tokio_postgres::SimpleQueryRow;

/// The names that a flat record has beside the columns'.
pub const RESERVED: [&str; 8] = [
    "op",
    "ts_ms",
    "lsn",
    "table",
    "key",
    "oldKey",
    "unchanged",
    "before",
];

/// What happens to columns of one table before anything is written.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ColumnRules {
    /// These columns are left out everywhere.
    pub exclude: Vec<String>,
    /// The values of these are replaced.
    pub mask: Vec<String>,
}

/// What happens to a column.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ColumnTreatment {
    Keep,
    Exclude,
    /// A text becomes `****`, a value of another type null.
    Mask,
}

/// A column of a [`TableShape`].
#[derive(Debug, Clone)]
pub struct ShapeColumn {
    pub name: String,
    pub kind: ValueKind,
    pub treatment: ColumnTreatment,
    /// The name in JSON with its colon.
    pub(super) member: Vec<u8>,
    /// The same at the top of a flat record.
    pub(super) flat_member: Vec<u8>,
}

/// The shape of a captured table, in the order of the columns of its rows.
#[derive(Debug, Clone)]
pub struct TableShape {
    pub oid: u32,
    pub schema: String,
    pub name: String,
    pub identity: ReplicaIdentity,
    pub columns: Vec<ShapeColumn>,
    /// Where the key's columns are, in the key's order.
    key: Vec<usize>,
}

impl TableShape {
    /// The shape of the rows that a snapshot reads.
    ///
    /// # Errors
    /// The key is excluded or masked, or a rule names no column.
    pub fn of_table(table: &CapturedTable, rules: &ColumnRules) -> Result<Self, CaptureError> {
        let known = |name: &&String| !table.columns.iter().any(|column| column.name == **name);
        if let Some(unknown) = rules.exclude.iter().chain(&rules.mask).find(known) {
            return Err(refused(
                table,
                format!("has no column {unknown:?}, which columns.exclude or columns.mask names"),
            ));
        }
        let columns = table.columns.iter().map(|column| {
            let kind = table.kind_of(column.type_oid);
            (column.name.clone(), kind)
        });
        Self::new(table, table.identity, columns.collect(), &table.key, rules)
    }

    /// The shape of the rows that a stream delivers: as the table was when it was changed. `table` is as it is now.
    ///
    /// # Errors
    /// The key is excluded or masked, or none is to be found.
    pub fn of_relation(
        relation: &Relation,
        table: &CapturedTable,
        rules: &ColumnRules,
    ) -> Result<Self, CaptureError> {
        let has = |name: &String| relation.columns.iter().any(|column| column.name == *name);
        let is_there = |name: &String| table.columns.iter().any(|column| column.name == *name);
        // A column that has got another name meanwhile is not to be written under that one. A rule for a column that was
        // added later is none for the rows before.
        let is_renamed = relation
            .columns
            .iter()
            .any(|column| !is_there(&column.name));
        let unknown = |name: &&String| !has(name) && (is_renamed || !is_there(name));
        if let Some(unknown) = rules.exclude.iter().chain(&rules.mask).find(unknown) {
            return Err(refused(
                table,
                format!(
                    "had no column {unknown:?} when it was changed, which columns.exclude or columns.mask names, and may \
                     have had it under another name; correct the rule, or begin behind these changes by eclusa capture \
                     drop-slot and resnapshot"
                ),
            ));
        }
        let key: Vec<String> = match relation.identity {
            ReplicaIdentity::Full if table.key.iter().all(has) => table.key.clone(),
            ReplicaIdentity::Full => Vec::new(),
            // The key as it was, in the order of today's if that is of the same columns.
            ReplicaIdentity::Default => {
                let identifying = relation.columns.iter().filter(|column| column.identifies);
                let key: Vec<String> = identifying.map(|column| column.name.clone()).collect();
                match key.len() == table.key.len()
                    && table.key.iter().all(|name| key.contains(name))
                {
                    true => table.key.clone(),
                    false => key,
                }
            }
            ReplicaIdentity::Index | ReplicaIdentity::Nothing => {
                return Err(refused(
                    table,
                    "had a REPLICA IDENTITY when it was changed by which rows are not known by their primary key; ALTER \
                     TABLE ... REPLICA IDENTITY DEFAULT, and begin behind these changes by eclusa capture drop-slot and \
                     resnapshot"
                        .to_owned(),
                ));
            }
        };
        let columns = relation.columns.iter().map(|column| {
            let kind = table.kind_of(column.type_oid);
            (column.name.clone(), kind)
        });
        let shape = Self::new(table, relation.identity, columns.collect(), &key, rules)?;
        Ok(Self {
            oid: relation.oid,
            schema: relation.schema.clone(),
            name: relation.name.clone(),
            ..shape
        })
    }

    fn new(
        table: &CapturedTable,
        identity: ReplicaIdentity,
        columns: Vec<(String, ValueKind)>,
        key: &[String],
        rules: &ColumnRules,
    ) -> Result<Self, CaptureError> {
        if key.is_empty() {
            return Err(refused(table, "has no primary key; add one".to_owned()));
        }
        for (rule, names) in [("exclude", &rules.exclude), ("mask", &rules.mask)] {
            if let Some(name) = names.iter().find(|name| key.contains(name)) {
                return Err(refused(
                    table,
                    format!(
                        "has {name:?} in its primary key, and columns.{rule} names it; records of unknown rows are of \
                         no use, so take it out of the rule, or the table out of the capture"
                    ),
                ));
            }
        }
        let place = |name: &String| columns.iter().position(|(column, _)| column == name);
        let key = key.iter().map(|name| {
            place(name).ok_or_else(|| refused(table, format!("has no column {name:?}")))
        });
        Ok(Self {
            oid: table.oid,
            schema: table.schema.clone(),
            name: table.name.clone(),
            identity,
            key: key.collect::<Result<_, _>>()?,
            columns: columns
                .into_iter()
                .map(|(name, kind)| ShapeColumn {
                    treatment: treatment(&name, rules),
                    member: member(&name),
                    flat_member: member(&flat_name(&name)),
                    name,
                    kind,
                })
                .collect(),
        })
    }

    /// The type of its events.
    pub fn event_type(&self) -> String {
        format!("change.{}.{}", self.schema, self.name)
    }

    /// `schema.table`.
    pub fn table(&self) -> String {
        format!("{}.{}", self.schema, self.name)
    }

    /// The columns of the key, in its order.
    pub fn key(&self) -> impl Iterator<Item = &ShapeColumn> {
        self.key.iter().filter_map(|at| self.columns.get(*at))
    }

    /// What a snapshot selects, without casts: each type has the text that the stream has. What is excluded is not
    /// read. Ask by simple queries, which give texts, on a session of [`CaptureDatabase::connect`], and read the rows by
    /// [`TableShape::tuple`].
    ///
    /// [`CaptureDatabase::connect`]: super::CaptureDatabase::connect
    pub fn select_list(&self) -> String {
        let item = |column: &ShapeColumn| match column.treatment {
            ColumnTreatment::Exclude => "NULL".to_owned(),
            ColumnTreatment::Keep | ColumnTreatment::Mask => escape_identifier(&column.name),
        };
        let items: Vec<String> = self.columns.iter().map(item).collect();
        items.join(", ")
    }

    /// The values of a row of [`TableShape::select_list`].
    pub fn tuple(&self, row: &SimpleQueryRow) -> Tuple {
        let value = |at| match row.get(at) {
            Some(text) => ColumnText::Text(Bytes::copy_from_slice(text.as_bytes())),
            None => ColumnText::Null,
        };
        (0..self.columns.len()).map(value).collect()
    }

    /// The columns of the key with their values in `tuple`.
    pub(super) fn key_values<'a>(
        &'a self,
        tuple: &'a Tuple,
    ) -> impl Iterator<Item = (&'a ShapeColumn, &'a ColumnText)> {
        self.key
            .iter()
            .filter_map(|at| Some((self.columns.get(*at)?, tuple.get(*at)?)))
    }

    /// The texts of the key's values: what tells a row from all others of the table. `None` if one is missing.
    pub fn key_texts(&self, tuple: &Tuple) -> Option<Vec<Bytes>> {
        let texts = self.key_values(tuple).map(|(_, value)| match value {
            ColumnText::Text(text) => Some(text.clone()),
            _ => None,
        });
        texts
            .collect::<Option<Vec<_>>>()
            .filter(|texts| texts.len() == self.key.len())
    }
}

/// A column's name at the top of a flat record. One that is a reserved name, apart from underscores before it, gets
/// one more: `op` is `_op`, and `_op` is `__op`. So no two columns meet, and each name can be read back.
pub fn flat_name(column: &str) -> String {
    if RESERVED.contains(&column.trim_start_matches('_')) {
        format!("_{column}")
    } else {
        column.to_owned()
    }
}

fn treatment(name: &String, rules: &ColumnRules) -> ColumnTreatment {
    if rules.exclude.contains(name) {
        ColumnTreatment::Exclude
    } else if rules.mask.contains(name) {
        ColumnTreatment::Mask
    } else {
        ColumnTreatment::Keep
    }
}

fn member(name: &str) -> Vec<u8> {
    let mut member = serde_json::to_vec(name).unwrap_or_default();
    member.push(b':');
    member
}

fn refused(table: &CapturedTable, reason: String) -> CaptureError {
    let message = format!("the table {}.{} {reason}", table.schema, table.name);
    CaptureError::operator(CaptureFault::Table, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_column_meets_a_reserved_name_or_another_column() {
        for (column, name) in [
            ("id", "id"),
            ("op", "_op"),
            ("_op", "__op"),
            ("__op", "___op"),
            ("_id", "_id"),
            ("oldkey", "oldkey"),
            ("oldKey", "_oldKey"),
        ] {
            assert_eq!(flat_name(column), name);
        }
    }
}

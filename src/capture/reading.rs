//! What a chunk reads: the next rows of a table, and rows that are to be read again.

use super::catalog::{TableName, look_at, operator_schemas};
use super::message::Tuple;
use super::state::TableSnapshot;
use super::visible::Visible;
use super::{CaptureError, ColumnRules, TableShape};
use bytes::Bytes;
use postgres_protocol::escape::{escape_identifier, escape_literal};
use std::collections::HashSet;
use tokio_postgres::{Client, SimpleQueryMessage};

/// Bytes of a chunk after which no more rows are fetched.
const MOST_BYTES: usize = 4 << 20;
/// Rows that are fetched first, before the size of a row is known, and at a time at most.
const FETCH: (usize, usize) = (1, 500);

/// The texts of a key's values.
pub(super) type KeyTexts = Vec<Bytes>;

/// What a chunk is read for, and where it begins.
pub(super) struct ChunkPlan<'a> {
    pub(super) table: &'a TableName,
    pub(super) rules: &'a ColumnRules,
    pub(super) snapshot: &'a TableSnapshot,
    pub(super) rows: usize,
}

/// A plan, and the table as it is in the chunk's transaction.
struct Reading<'a> {
    plan: &'a ChunkPlan<'a>,
    shape: TableShape,
    /// A partition's rows are read through its table.
    partitioned: bool,
}

/// The rows of a chunk.
pub(super) struct ChunkRows {
    /// The next rows and those that are read again, with their keys.
    pub(super) rows: Vec<(KeyTexts, Tuple)>,
    /// The key of the last one of the next rows.
    pub(super) after: Option<Vec<String>>,
    /// No row follows it.
    pub(super) is_last: bool,
    /// Keys that were to be read again, and were; where none was found the row is gone.
    pub(super) again: HashSet<Vec<String>>,
    /// All keys that the chunk has to do with.
    pub(super) keys: HashSet<KeyTexts>,
}

impl ChunkPlan<'_> {
    /// Reads the next rows and those that are to be read again, in one snapshot of the server, by the columns that the table
    /// has in it: the stream may be far behind the table. Of the transactions that the stream had, `had` keeps those that it
    /// does not see.
    ///
    /// The table is locked before the snapshot is taken. To a snapshot from before a change that rewrites the table, such as
    /// that of a column's type, the table is empty. A process that hangs here keeps the lock for 10 s at most.
    ///
    /// # Errors
    /// The server refuses. The transaction is still to be rolled back.
    pub(super) async fn read(
        &self,
        client: &Client,
        had: &mut HashSet<u32>,
    ) -> Result<(TableShape, ChunkRows, Visible), CaptureError> {
        client
            .batch_execute(&format!(
                "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY; SET LOCAL lock_timeout = '200ms'; \
                 SET LOCAL statement_timeout = '10s'; SET LOCAL idle_in_transaction_session_timeout = '10s'; \
                 LOCK TABLE ONLY {}.{} IN ACCESS SHARE MODE",
                escape_identifier(&self.table.schema),
                escape_identifier(&self.table.name),
            ))
            .await?;
        let visible = Visible::ask(client).await?;
        had.retain(|xid| visible.misses(*xid));
        let table = look_at(client, self.table).await?;
        // A key of a type that an extension has is compared by the operator that its index has.
        let schemas = operator_schemas(client, table.oid).await?;
        client
            .batch_execute(&format!("SET LOCAL search_path = {schemas}"))
            .await?;
        let reading = Reading {
            plan: self,
            shape: TableShape::of_table(&table, self.rules)?,
            partitioned: table.partitioned,
        };
        let found = reading.read(client).await?;
        client.batch_execute("COMMIT").await?;
        Ok((reading.shape, found, visible))
    }
}

impl Reading<'_> {
    async fn read(&self, client: &Client) -> Result<ChunkRows, CaptureError> {
        let (rows, is_last) = self
            .fetch(client, &self.next_rows(), self.plan.rows)
            .await?;
        let mut found = ChunkRows {
            after: rows.last().map(|(key, _)| texts(key)),
            keys: rows.iter().map(|(key, _)| key.clone()).collect(),
            rows,
            is_last,
            again: HashSet::new(),
        };
        let asked = &self.plan.snapshot.again;
        if !asked.is_empty() {
            let (rows, are_all) = self
                .fetch(client, &self.rows_again(), asked.len() + 1)
                .await?;
            found.again = match are_all {
                true => asked.iter().cloned().collect(),
                false => rows.iter().map(|(key, _)| texts(key)).collect(),
            };
            // Some are among the next rows, too.
            let news = rows
                .into_iter()
                .filter(|(key, _)| found.keys.insert(key.clone()));
            found.rows.extend(news);
            found.keys.extend(found.again.iter().map(|key| bytes(key)));
        }
        Ok(found)
    }

    /// The statement that reads the next rows.
    fn next_rows(&self) -> String {
        let names = self.key_names();
        let after = self.plan.snapshot.after.as_ref();
        // A key of other columns is that of a table that has got another one since.
        let behind = after.filter(|after| after.len() == self.shape.key().count());
        let behind = behind.map_or_else(String::new, |after| {
            format!(" WHERE ({names}) > {}", literals(after))
        });
        let end = format!("{behind} ORDER BY {names} LIMIT {}", self.plan.rows);
        self.select() + &end
    }

    /// The statement that reads rows again. Keys of other columns have left the table.
    fn rows_again(&self) -> String {
        let columns = self.shape.key().count();
        let again = self.plan.snapshot.again.iter();
        let again = again.filter(|key| key.len() == columns);
        let keys: Vec<String> = again.map(|key| literals(key)).collect();
        let rows = match keys.is_empty() {
            true => "false".to_owned(),
            false => format!("({}) IN ({})", self.key_names(), keys.join(", ")),
        };
        format!("{} WHERE {rows}", self.select())
    }

    fn key_names(&self) -> String {
        let names = self.shape.key();
        let names: Vec<String> = names
            .map(|column| escape_identifier(&column.name))
            .collect();
        names.join(", ")
    }

    fn select(&self) -> String {
        let only = if self.partitioned { "" } else { "ONLY " };
        format!(
            "SELECT {} FROM {only}{}.{}",
            self.shape.select_list(),
            escape_identifier(&self.shape.schema),
            escape_identifier(&self.shape.name),
        )
    }

    /// The rows of a statement, at most `most` of them and not many more bytes than a chunk may have; whether these are all.
    async fn fetch(
        &self,
        client: &Client,
        select: &str,
        most: usize,
    ) -> Result<(Vec<(KeyTexts, Tuple)>, bool), CaptureError> {
        let declare = format!("DECLARE chunk NO SCROLL CURSOR FOR {select}");
        client.batch_execute(&declare).await?;
        let (mut rows, mut bytes) = (Vec::new(), 0);
        let mut wanted = FETCH.0.min(most);
        let are_all = loop {
            let fetched = client
                .simple_query(&format!("FETCH {wanted} FROM chunk"))
                .await?;
            let before = rows.len();
            for message in &fetched {
                let SimpleQueryMessage::Row(row) = message else {
                    continue;
                };
                bytes += (0..row.len())
                    .filter_map(|at| row.get(at))
                    .map(str::len)
                    .sum::<usize>();
                let tuple = self.shape.tuple(row);
                // A primary key has no nulls.
                if let Some(key) = self.shape.key_texts(&tuple) {
                    rows.push((key, tuple));
                }
            }
            if rows.len() - before < wanted {
                break true;
            }
            let room = MOST_BYTES.saturating_sub(bytes) / (bytes / rows.len().max(1)).max(1);
            wanted = most.saturating_sub(rows.len()).min(room).min(FETCH.1);
            if wanted == 0 {
                break false;
            }
        };
        client.batch_execute("CLOSE chunk").await?;
        Ok((rows, are_all))
    }
}

/// A key as the state keeps it.
pub(super) fn texts(key: &KeyTexts) -> Vec<String> {
    let text = |value: &Bytes| String::from_utf8_lossy(value).into_owned();
    key.iter().map(text).collect()
}

fn bytes(key: &[String]) -> KeyTexts {
    let value = |text: &String| Bytes::copy_from_slice(text.as_bytes());
    key.iter().map(value).collect()
}

/// A key in a statement.
fn literals(key: &[String]) -> String {
    let values: Vec<String> = key.iter().map(|value| escape_literal(value)).collect();
    format!("({})", values.join(", "))
}

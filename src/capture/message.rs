//! What a replication stream delivers.

use super::Lsn;
use bytes::Bytes;
use chrono::{DateTime, Utc};
use std::sync::Arc;

/// One message of a replication stream. Transactions come one after the other, in the order of their commits, and
/// those that are rolled back never.
#[derive(Debug, Clone)]
pub enum ReplicationMessage {
    /// A transaction begins.
    Begin(ReplicatedTransaction),
    /// The columns of a table, before its first change and again after each change of the table itself. Also those of
    /// partitions of a captured table, although their changes are the captured table's.
    Relation(Arc<Relation>),
    /// A row was inserted, updated or deleted.
    Change(RowChange),
    /// Tables were emptied by one command.
    Truncate {
        lsn: Lsn,
        relations: Vec<Arc<Relation>>,
    },
    /// A message that `pg_logical_emit_message` wrote. One that is not transactional comes when it is written, also
    /// between transactions, and before those that are open at that time.
    Logical {
        lsn: Lsn,
        transactional: bool,
        prefix: String,
        content: Bytes,
    },
    /// The transaction that began last is complete.
    Commit {
        /// Place of the commit.
        commit_lsn: Lsn,
        /// Place after the commit: what to confirm when the transaction is durable here.
        end_lsn: Lsn,
        time: DateTime<Utc>,
    },
    /// Everything up to `wal_end` that concerns the slot has been delivered before this message. When all of it is
    /// durable here, `wal_end` can be confirmed, so that the slot moves while other tables alone are written.
    Keepalive { wal_end: Lsn },
}

/// A transaction, as its beginning describes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReplicatedTransaction {
    pub xid: u32,
    /// Place of its commit.
    pub final_lsn: Lsn,
    pub commit_time: DateTime<Utc>,
}

/// A change of one row.
#[derive(Debug, Clone)]
pub struct RowChange {
    /// Place of the change itself, which is before that of its commit.
    pub lsn: Lsn,
    /// Which of the changes at this place: one record of the log can hold many rows.
    pub place: u32,
    pub relation: Arc<Relation>,
    pub kind: RowChangeKind,
}

/// What became of a row.
#[derive(Debug, Clone)]
pub enum RowChangeKind {
    Insert {
        new: Tuple,
    },
    /// `old` is absent where the key has not changed and the table's identity is not FULL.
    Update {
        old: Option<OldTuple>,
        new: Tuple,
    },
    Delete {
        old: OldTuple,
    },
}

/// What a change says of the row as it was before.
#[derive(Debug, Clone)]
pub enum OldTuple {
    /// The columns of the table's identity alone; the others are null.
    Key(Tuple),
    /// All columns: the table's identity is FULL.
    Full(Tuple),
}

impl OldTuple {
    /// The values.
    pub fn tuple(&self) -> &Tuple {
        match self {
            OldTuple::Key(tuple) | OldTuple::Full(tuple) => tuple,
        }
    }
}

/// The values of a row, in the order of the relation's columns.
pub type Tuple = Vec<ColumnText>;

/// A column's value as PostgreSQL writes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ColumnText {
    Null,
    /// A large value that the update did not touch. The log does not have it.
    Unchanged,
    /// So many bytes, which are not read: the row is too large for any event.
    Omitted(u32),
    Text(Bytes),
}

/// The table of a change, as it was at the time of the change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Relation {
    pub oid: u32,
    pub schema: String,
    pub name: String,
    pub identity: ReplicaIdentity,
    pub columns: Vec<RelationColumn>,
}

/// A column of a [`Relation`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RelationColumn {
    pub name: String,
    /// Part of the table's identity. With FULL each column is.
    pub identifies: bool,
    pub type_oid: u32,
    pub type_modifier: i32,
}

/// What the log keeps of the old row (`ALTER TABLE ... REPLICA IDENTITY`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReplicaIdentity {
    /// The primary key.
    Default,
    /// Nothing: updates and deletes are refused by PostgreSQL itself while the table is published.
    Nothing,
    /// The whole row.
    Full,
    /// The columns of a unique index.
    Index,
}

impl ReplicaIdentity {
    /// By the letter in `pg_class.relreplident` and on the wire.
    pub fn parse(letter: u8) -> Option<Self> {
        Some(match letter {
            b'd' => ReplicaIdentity::Default,
            b'n' => ReplicaIdentity::Nothing,
            b'f' => ReplicaIdentity::Full,
            b'i' => ReplicaIdentity::Index,
            _ => return None,
        })
    }
}

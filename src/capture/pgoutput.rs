//! The messages of PostgreSQL's output plugin `pgoutput`, version 1 of its protocol.

use super::fields::Fields;
use super::message::{
    ColumnText, OldTuple, RelationColumn, ReplicaIdentity, ReplicatedTransaction, RowChangeKind,
    Tuple,
};
use super::shrink::OMITTED;
use super::{CaptureError, Lsn, Relation, ReplicationMessage, RowChange};
use std::collections::HashMap;
use std::sync::Arc;

/// The reader of a stream's messages: it knows the tables that were announced.
#[derive(Default)]
pub(super) struct Decoder {
    relations: HashMap<u32, Arc<Relation>>,
    /// The place of the last change, and how many changes there were at it.
    last: (Lsn, u32),
}

impl Decoder {
    /// Reads the message at `lsn`; `None` for one that says nothing of rows.
    pub(super) fn decode(
        &mut self,
        lsn: Lsn,
        mut fields: Fields,
    ) -> Result<Option<ReplicationMessage>, CaptureError> {
        let message = match fields.u8()? {
            b'B' => {
                self.last = Default::default();
                ReplicationMessage::Begin(ReplicatedTransaction {
                    final_lsn: fields.lsn()?,
                    commit_time: fields.time()?,
                    xid: fields.u32()?,
                })
            }
            b'C' => {
                fields.u8()?;
                ReplicationMessage::Commit {
                    commit_lsn: fields.lsn()?,
                    end_lsn: fields.lsn()?,
                    time: fields.time()?,
                }
            }
            b'R' => {
                let relation = Arc::new(relation(&mut fields)?);
                self.relations.insert(relation.oid, Arc::clone(&relation));
                ReplicationMessage::Relation(relation)
            }
            b'I' => {
                let relation = self.relation(fields.u32()?)?;
                fields.u8()?;
                let new = tuple(&mut fields, &relation)?;
                self.change(lsn, relation, RowChangeKind::Insert { new })
            }
            b'U' => {
                let relation = self.relation(fields.u32()?)?;
                let mut kind = fields.u8()?;
                let mut old = None;
                if kind != b'N' {
                    old = Some(old_tuple(kind, &mut fields, &relation)?);
                    kind = fields.u8()?;
                }
                if kind != b'N' {
                    return Err(CaptureError::unreadable("an update without a new row"));
                }
                let new = tuple(&mut fields, &relation)?;
                self.change(lsn, relation, RowChangeKind::Update { old, new })
            }
            b'D' => {
                let relation = self.relation(fields.u32()?)?;
                let old = old_tuple(fields.u8()?, &mut fields, &relation)?;
                self.change(lsn, relation, RowChangeKind::Delete { old })
            }
            b'T' => {
                let tables = fields.u32()?;
                fields.u8()?;
                let relations = (0..tables).map(|_| self.relation(fields.u32()?));
                ReplicationMessage::Truncate {
                    lsn,
                    relations: relations.collect::<Result<_, _>>()?,
                }
            }
            b'M' => logical(&mut fields)?,
            // Origins and names of types.
            b'O' | b'Y' => return Ok(None),
            _ => return Err(CaptureError::unreadable("an unknown change")),
        };
        Ok(Some(message))
    }

    fn relation(&self, oid: u32) -> Result<Arc<Relation>, CaptureError> {
        let relation = self.relations.get(&oid).cloned();
        relation
            .ok_or_else(|| CaptureError::unreadable("a change of a table that was not announced"))
    }

    fn change(
        &mut self,
        lsn: Lsn,
        relation: Arc<Relation>,
        kind: RowChangeKind,
    ) -> ReplicationMessage {
        let place = match self.last {
            (last, place) if last == lsn => place + 1,
            _ => 0,
        };
        self.last = (lsn, place);
        ReplicationMessage::Change(RowChange {
            lsn,
            place,
            relation,
            kind,
        })
    }
}

fn relation(fields: &mut Fields) -> Result<Relation, CaptureError> {
    let oid = fields.u32()?;
    let schema = fields.text()?;
    let name = fields.text()?;
    let identity = ReplicaIdentity::parse(fields.u8()?)
        .ok_or_else(|| CaptureError::unreadable("an unknown replica identity"))?;
    let mut columns = Vec::new();
    for _ in 0..fields.u16()? {
        columns.push(RelationColumn {
            identifies: fields.u8()? & 1 != 0,
            name: fields.text()?,
            type_oid: fields.u32()?,
            type_modifier: fields.i32()?,
        });
    }
    Ok(Relation {
        oid,
        // The server writes pg_catalog as the empty name.
        schema: if schema.is_empty() {
            "pg_catalog".to_owned()
        } else {
            schema
        },
        name,
        identity,
        columns,
    })
}

fn old_tuple(kind: u8, fields: &mut Fields, relation: &Relation) -> Result<OldTuple, CaptureError> {
    match kind {
        b'K' => Ok(OldTuple::Key(tuple(fields, relation)?)),
        b'O' => Ok(OldTuple::Full(tuple(fields, relation)?)),
        _ => Err(CaptureError::unreadable("an old row of an unknown kind")),
    }
}

fn tuple(fields: &mut Fields, relation: &Relation) -> Result<Tuple, CaptureError> {
    let columns = usize::from(fields.u16()?);
    if columns != relation.columns.len() {
        return Err(CaptureError::unreadable(
            "a row that is not one of its table",
        ));
    }
    let mut tuple = Vec::with_capacity(columns);
    for _ in 0..columns {
        tuple.push(match fields.u8()? {
            b'n' => ColumnText::Null,
            b'u' => ColumnText::Unchanged,
            OMITTED => ColumnText::Omitted(fields.u32()?),
            b't' => {
                let length = fields.u32()? as usize;
                ColumnText::Text(fields.take(length)?)
            }
            _ => return Err(CaptureError::unreadable("a value of an unknown kind")),
        });
    }
    Ok(tuple)
}

fn logical(fields: &mut Fields) -> Result<ReplicationMessage, CaptureError> {
    let transactional = fields.u8()? & 1 != 0;
    let lsn = fields.lsn()?;
    let prefix = fields.text()?;
    // Of a very large one only the beginning is read; it is another program's.
    let length = (fields.u32()? as usize).min(fields.0.len());
    Ok(ReplicationMessage::Logical {
        lsn,
        transactional,
        prefix,
        content: fields.take(length)?,
    })
}

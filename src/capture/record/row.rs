//! The members of a row in JSON.

use super::super::message::{ColumnText, Tuple};
use super::super::shape::{ColumnTreatment, ShapeColumn};
use super::super::shrink::MAX_ROW;
use super::super::value::{ValueKind, ValueWriter};

/// What a masked text is replaced by.
const MASK: &[u8] = b"\"****\"";

/// What Debezium writes for a value that the log does not have, as a text and as bytes.
const UNAVAILABLE: &[u8] = b"\"__debezium_unavailable_value\"";
const UNAVAILABLE_BYTES: &[u8] = b"\"X19kZWJleml1bV91bmF2YWlsYWJsZV92YWx1ZQ==\"";

/// Which name a column has.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Naming {
    /// Beside reserved names.
    Top,
    /// In an object of its own.
    Nested,
}

/// What to do with a value that the log does not have.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Missing {
    /// The member is left out.
    LeaveOut,
    /// Debezium's placeholder stands in its place.
    Placeholder,
}

/// Appends the members of columns, each with a comma behind it.
pub(super) fn members<'a>(
    writer: &ValueWriter,
    columns: impl Iterator<Item = (&'a ShapeColumn, &'a ColumnText)>,
    (naming, missing): (Naming, Missing),
    out: &mut Vec<u8>,
) -> Result<(), String> {
    for (column, value) in columns {
        if column.treatment == ColumnTreatment::Exclude
            || (*value == ColumnText::Unchanged && missing == Missing::LeaveOut)
        {
            continue;
        }
        out.extend_from_slice(match naming {
            Naming::Top => &column.flat_member,
            Naming::Nested => &column.member,
        });
        self::value(writer, column, value, out)
            .map_err(|reason| format!("the column {:?} {reason}", column.name))?;
        out.push(b',');
    }
    Ok(())
}

fn value(
    writer: &ValueWriter,
    column: &ShapeColumn,
    value: &ColumnText,
    out: &mut Vec<u8>,
) -> Result<(), String> {
    match value {
        ColumnText::Null => out.extend_from_slice(b"null"),
        _ if column.treatment == ColumnTreatment::Mask => {
            let mask: &[u8] = if column.kind.is_text() { MASK } else { b"null" };
            out.extend_from_slice(mask);
        }
        ColumnText::Unchanged => match &column.kind {
            ValueKind::Bytes => out.extend_from_slice(UNAVAILABLE_BYTES),
            ValueKind::Array { .. } => {
                out.push(b'[');
                out.extend_from_slice(UNAVAILABLE);
                out.push(b']');
            }
            _ => out.extend_from_slice(UNAVAILABLE),
        },
        ColumnText::Omitted(length) => {
            return Err(format!("has {length} bytes, and a row {MAX_ROW} at most"));
        }
        ColumnText::Text(text) => {
            let text = std::str::from_utf8(text).map_err(|_| "is not UTF-8".to_owned())?;
            writer.write(&column.kind, text, out)?;
        }
    }
    Ok(())
}

/// Appends an object of columns.
pub(super) fn object<'a>(
    writer: &ValueWriter,
    columns: impl Iterator<Item = (&'a ShapeColumn, &'a ColumnText)>,
    missing: Missing,
    out: &mut Vec<u8>,
) -> Result<(), String> {
    out.push(b'{');
    members(writer, columns, (Naming::Nested, missing), out)?;
    close(out, b'}');
    Ok(())
}

/// Ends a list whose items have a comma behind them.
pub(super) fn close(out: &mut Vec<u8>, bracket: u8) {
    if out.last() == Some(&b',') {
        out.pop();
    }
    out.push(bracket);
}

/// The columns of a row with their values.
pub(super) fn pairs<'a>(
    columns: &'a [ShapeColumn],
    tuple: &'a Tuple,
) -> impl Iterator<Item = (&'a ShapeColumn, &'a ColumnText)> {
    columns.iter().zip(tuple)
}

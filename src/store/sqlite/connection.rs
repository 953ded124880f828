//! Opening the file, with the settings that durability and concurrent readers need.

use crate::store::{ErrorKind, StoreError};
use diesel::connection::SimpleConnection;
use diesel::sql_types::Text;
use diesel::{Connection, QueryableByName, RunQueryDsl, SqliteConnection, sql_query};
use std::path::Path;

/// A failure inside a transaction of diesel, which wants to turn its own errors into ours.
pub(super) struct SqliteFailure(pub(super) StoreError);

impl From<diesel::result::Error> for SqliteFailure {
    fn from(error: diesel::result::Error) -> Self {
        Self(StoreError::sqlite(error))
    }
}

impl From<StoreError> for SqliteFailure {
    fn from(error: StoreError) -> Self {
        Self(error)
    }
}

/// What the connection is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Purpose {
    /// Making the file and its tables.
    Migrate,
    /// The one connection that writes.
    Write,
    Read,
}

/// A commit is on the disk when it returns (`synchronous = FULL`). The journal is cut back after
/// a checkpoint that a long reader had held up.
const WRITE: &str = "PRAGMA synchronous = FULL; PRAGMA foreign_keys = ON; \
    PRAGMA cache_size = -32768; PRAGMA wal_autocheckpoint = 4000; \
    PRAGMA journal_size_limit = 67108864; PRAGMA temp_store = MEMORY;";

const READ: &str = "PRAGMA query_only = ON; PRAGMA cache_size = -8192; PRAGMA temp_store = MEMORY;";

/// How long to wait for a lock that another process holds, such as the command line tool.
const BUSY: &str = "PRAGMA busy_timeout = 5000;";

/// Opens the file. Only [`Purpose::Migrate`] makes one that is not there.
pub(super) fn open(path: &Path, purpose: Purpose) -> Result<SqliteConnection, StoreError> {
    let mut connection = SqliteConnection::establish(&uri(path, purpose)?).map_err(|error| {
        let message = format!("SQLite cannot open {}: {error}", path.display());
        StoreError::new(ErrorKind::Operator, message).with_source(error)
    })?;
    set_up(&mut connection, purpose)
        .map_err(|SqliteFailure(error)| error.context(&format!("cannot use {}", path.display())))?;
    Ok(connection)
}

fn set_up(connection: &mut SqliteConnection, purpose: Purpose) -> Result<(), SqliteFailure> {
    connection.batch_execute(BUSY)?;
    match purpose {
        Purpose::Read => connection.batch_execute(READ)?,
        Purpose::Write | Purpose::Migrate => {
            connection.batch_execute(WRITE)?;
            write_ahead(connection)?;
        }
    }
    Ok(())
}

#[derive(QueryableByName)]
struct JournalMode {
    #[diesel(sql_type = Text)]
    journal_mode: String,
}

/// Switches to a write-ahead log, so that readers and the writer do not wait for each other.
fn write_ahead(connection: &mut SqliteConnection) -> Result<(), SqliteFailure> {
    let mode: JournalMode = sql_query("PRAGMA journal_mode = WAL").get_result(connection)?;
    if mode.journal_mode == "wal" {
        return Ok(());
    }
    let message = format!(
        "this file system or file cannot have a write-ahead log (journal mode {}); \
         use a local disk",
        mode.journal_mode
    );
    Err(StoreError::new(ErrorKind::Operator, message).into())
}

/// The file as a URI, since only that can say whether it may be made.
fn uri(path: &Path, purpose: Purpose) -> Result<String, StoreError> {
    let Some(path) = path.to_str() else {
        return Err(StoreError::new(
            ErrorKind::Operator,
            format!("the path {} is not UTF-8", path.display()),
        ));
    };
    let mode = match purpose {
        Purpose::Migrate => "rwc",
        Purpose::Write | Purpose::Read => "rw",
    };
    let mut uri = String::from("file:");
    for character in path.chars() {
        match character {
            '%' => uri.push_str("%25"),
            '?' => uri.push_str("%3f"),
            '#' => uri.push_str("%23"),
            other => uri.push(other),
        }
    }
    Ok(format!("{uri}?mode={mode}"))
}

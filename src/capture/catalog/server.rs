//! The captured server: whether it can be captured at all, and which one it is.

use crate::capture::replication::ReplicationConnection;
use crate::capture::{CaptureError, CaptureFault, Lsn, Timelines};
use crate::store::ErrorKind;
use tokio_postgres::Client;

/// The oldest version: 14 is the first whose `pgoutput` passes on messages, which are a snapshot's watermarks.
const OLDEST: i32 = 140_000;

/// Which server it is, and where its log is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerIdentity {
    /// `system_identifier`: the same on all replicas of one database.
    pub system: u64,
    pub timelines: Timelines,
    /// The end of its log.
    pub wal_end: Lsn,
}

impl ServerIdentity {
    /// Asks the server.
    ///
    /// # Errors
    /// The server refuses, or answers in another form.
    pub async fn ask(connection: &mut ReplicationConnection) -> Result<Self, CaptureError> {
        let rows = connection.query("IDENTIFY_SYSTEM").await?;
        let mut texts = rows.into_iter().flatten().flatten();
        let unreadable = || CaptureError::unreadable("an identity in another form");
        let system = texts.next().and_then(|text| text.parse().ok());
        let timeline = texts.next().and_then(|text| text.parse().ok());
        let wal_end = texts.next().and_then(|text| text.parse().ok());
        let (Some(system), Some(current), Some(wal_end)) = (system, timeline, wal_end) else {
            return Err(unreadable());
        };
        let timelines = if current > 1 {
            let command = format!("TIMELINE_HISTORY {current}");
            let rows = connection.query(&command).await?;
            let history = rows.into_iter().flatten().nth(1).flatten();
            Timelines::parse(current, &history.ok_or_else(unreadable)?)?
        } else {
            Timelines::only(current)
        };
        Ok(Self {
            system,
            timelines,
            wal_end,
        })
    }
}

/// Checks that the server and the user can do logical replication.
///
/// # Errors
/// What is missing, and what to do.
pub async fn check(client: &Client) -> Result<(), CaptureError> {
    let row = client
        .query_one(
            "SELECT current_setting('server_version_num')::int AS version, current_setting('wal_level') AS wal_level, \
             pg_is_in_recovery() AS standby, current_setting('server_encoding') AS encoding, \
              current_user::text AS me, \
             (SELECT rolsuper OR rolreplication FROM pg_roles WHERE rolname = current_user) \
             OR EXISTS (SELECT FROM pg_roles WHERE rolname IN ('rds_replication', 'rds_superuser') \
             AND pg_has_role(oid, 'MEMBER')) AS may_replicate",
            &[],
        )
        .await?;
    let version: i32 = row.try_get("version")?;
    if version < OLDEST {
        return Err(CaptureError::new(
            ErrorKind::Operator,
            format!(
                "the captured PostgreSQL is {}; captures need 14 or later",
                version / 10_000
            ),
        ));
    }
    let wal_level: String = row.try_get("wal_level")?;
    if wal_level != "logical" {
        return Err(CaptureError::operator(
            CaptureFault::WalLevel,
            format!(
                "the captured PostgreSQL has wal_level = {wal_level}; set wal_level = logical in postgresql.conf and \
                 restart it"
            ),
        ));
    }
    if row.try_get::<_, &str>("encoding")? == "SQL_ASCII" {
        return Err(CaptureError::new(
            ErrorKind::Operator,
            "the captured database has the encoding SQL_ASCII, so its texts are in no known encoding; only databases with \
             a known one can be captured, such as a dump that is restored into a database in UTF8",
        ));
    }
    if row.try_get("standby")? {
        return Err(CaptureError::new(
            ErrorKind::Outage,
            "the captured PostgreSQL is a standby, which takes no watermarks of snapshots; name the primary, or add \
             target_session_attrs=read-write to a URL with several hosts",
        ));
    }
    if !row.try_get("may_replicate")? {
        let me: String = row.try_get("me")?;
        return Err(CaptureError::operator(
            CaptureFault::NoRight,
            format!("the user {me} may not replicate; ALTER ROLE {me} REPLICATION"),
        ));
    }
    Ok(())
}

/// Writes a message to the server's log, which its streams deliver: a watermark. Gives its place.
///
/// # Errors
/// The server refuses.
pub async fn emit(
    client: &Client,
    transactional: bool,
    prefix: &str,
    content: &str,
) -> Result<Lsn, CaptureError> {
    let row = client
        .query_one(
            "SELECT pg_logical_emit_message($1, $2, $3)::text",
            &[&transactional, &prefix, &content],
        )
        .await?;
    place(row.try_get(0)?)
}

/// Reads the place in a column.
pub(super) fn place(text: &str) -> Result<Lsn, CaptureError> {
    text.parse()
        .map_err(|error: String| CaptureError::new(ErrorKind::Operator, error))
}

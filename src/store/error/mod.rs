//! Errors of a store, classified once into the four kinds that decide what follows.
//!
//! Nothing else in the crate reads an SQLSTATE or the text of a database error; a test in
//! `lib.rs` keeps it so.

mod classify;
#[cfg(feature = "postgres")]
mod refusal;

use crate::event::Cause;
#[cfg(feature = "postgres")]
pub(crate) use classify::is_missing_partition;
use classify::kind_of_message;
#[cfg(feature = "sqlite")]
use classify::kind_of_sqlite_message;
pub use classify::kind_of_sqlstate;
#[cfg(feature = "postgres")]
use classify::{
    NOT_NULL_VIOLATION, QUERY_CANCELED, is_lock_or_time_limit, is_stale_plan,
    kind_of_connection_error, kind_of_postgres_message,
};
use classify::{kind_of_diesel, without_quotes};
#[cfg(feature = "postgres")]
pub use refusal::ServerRefusal;
use std::error::Error;
use std::fmt;
use std::sync::Arc;
#[cfg(feature = "postgres")]
use std::time::Duration;

/// The kind of a failure, as the store or the broker reports it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ErrorKind {
    /// The store or the broker is unavailable.
    Outage,
    /// All work is refused until an operator acts: schema, permissions, disk.
    Operator,
    /// The same work may succeed later.
    Transient,
    /// This content is refused, whatever the state of the store.
    Poison,
}

impl ErrorKind {
    /// The word in metric labels and log lines.
    pub fn as_str(self) -> &'static str {
        match self {
            ErrorKind::Outage => "outage",
            ErrorKind::Operator => "operator",
            ErrorKind::Transient => "transient",
            ErrorKind::Poison => "poison",
        }
    }
}

impl fmt::Display for ErrorKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A classified error of a store.
///
/// Its `Display` is a sentence for a log line or an error response and contains nothing of an
/// event. The same is true of the chain below it: where the database quotes the refused value in
/// its details (SQLSTATE classes 22 and 23), only the sentence is kept.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{message}")]
pub struct StoreError {
    kind: ErrorKind,
    cause: Cause,
    message: String,
    sqlstate: Option<String>,
    // Shared, because a failed commit is the failure of every command in it.
    #[source]
    source: Option<Arc<dyn Error + Send + Sync>>,
}

impl StoreError {
    /// An error of this kind, with a sentence that says what happened.
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        let cause = match kind {
            ErrorKind::Poison => Cause::Poison,
            _ => Cause::RetriesExhausted,
        };
        Self {
            kind,
            cause,
            message: message.into(),
            sqlstate: None,
            source: None,
        }
    }

    /// A transient error with a cause of its own.
    pub fn transient(cause: Cause, message: impl Into<String>) -> Self {
        let error = Self::new(ErrorKind::Transient, message);
        Self { cause, ..error }
    }

    /// The same error as an outage.
    #[must_use]
    pub fn into_outage(self) -> Self {
        Self {
            kind: ErrorKind::Outage,
            cause: Cause::RetriesExhausted,
            ..self
        }
    }

    /// Keeps `source` in the chain.
    #[must_use]
    pub fn with_source(mut self, source: impl Error + Send + Sync + 'static) -> Self {
        self.source = Some(Arc::new(source));
        self
    }

    /// Says what was being done: `context: message`.
    #[must_use]
    pub fn context(mut self, context: &str) -> Self {
        self.message = format!("{context}: {}", self.message);
        self
    }

    /// Its kind, from which `retry/policy.rs` derives what follows.
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }

    /// Why an event that fails with it, in the end, becomes a dead letter.
    pub fn cause(&self) -> Cause {
        self.cause
    }

    /// The word in metric labels and log lines: the kind, but `panic` and `timeout` by name.
    pub fn label(&self) -> &'static str {
        match self.cause {
            Cause::Panic | Cause::Timeout => self.cause.as_str(),
            _ => self.kind.as_str(),
        }
    }

    /// PostgreSQL's five-character code, where it gave one.
    pub fn sqlstate(&self) -> Option<&str> {
        self.sqlstate.as_deref()
    }

    /// Whether a failed write probe shows that no row can be written. A refusal of the probe's own row,
    /// by a constraint or an exception that a trigger raises, does not.
    #[cfg(feature = "postgres")]
    pub(crate) fn stops_all_writes(&self) -> bool {
        match self.kind {
            ErrorKind::Outage | ErrorKind::Operator => true,
            ErrorKind::Transient => self.sqlstate().is_none_or(is_lock_or_time_limit),
            ErrorKind::Poison => false,
        }
    }

    /// Whether a column that must have a value got none.
    #[cfg(feature = "postgres")]
    pub(crate) fn is_missing_value(&self) -> bool {
        self.sqlstate() == Some(NOT_NULL_VIOLATION)
    }

    /// The same error as one that an operator must act on, with another sentence.
    #[cfg(feature = "postgres")]
    pub(crate) fn of_operator(self, message: String) -> Self {
        Self {
            kind: ErrorKind::Operator,
            cause: Cause::RetriesExhausted,
            message,
            ..self
        }
    }

    /// No connection became free, or could be made, in time.
    #[cfg(feature = "postgres")]
    pub(crate) fn no_connection_within(limit: Duration) -> Self {
        let limit = humantime::format_duration(limit);
        Self::new(ErrorKind::Outage, format!("no connection within {limit}"))
    }

    /// The server has not answered in time.
    #[cfg(feature = "postgres")]
    pub(crate) fn no_answer_within(limit: Duration) -> Self {
        let limit = humantime::format_duration(limit);
        let message = format!("no answer from PostgreSQL within {limit}");
        Self::new(ErrorKind::Outage, message)
    }

    /// What a server told on a connection without a driver: its code and its words.
    #[cfg(feature = "service")]
    pub(crate) fn of_server(code: &str, told: &str) -> Self {
        let message = format!("PostgreSQL: {told} (SQLSTATE {code})");
        Self {
            sqlstate: Some(code.to_owned()),
            ..Self::new(kind_of_sqlstate(code), message)
        }
    }

    /// Classifies an SQLite error that diesel reports. diesel keeps only the text of most result
    /// codes; the texts are constants of SQLite (`sqlite3ErrStr`), not subject to locale.
    #[cfg(feature = "sqlite")]
    pub(crate) fn sqlite(error: diesel::result::Error) -> Self {
        Self::diesel("SQLite", error, kind_of_sqlite_message)
    }

    /// Classifies a PostgreSQL error that diesel-async reports. It drops the SQLSTATE, so this is
    /// for reads only, where the kind decides nothing about an event: unknown errors are transient.
    #[cfg(feature = "postgres")]
    pub(crate) fn postgres_read(error: diesel::result::Error) -> Self {
        Self::diesel("PostgreSQL", error, kind_of_postgres_message)
    }

    /// Classifies an error of a transaction of which only the follower's own code knows the database.
    pub(crate) fn either(error: diesel::result::Error) -> Self {
        Self::diesel("the database", error, kind_of_message)
    }

    fn diesel(
        database: &str,
        error: diesel::result::Error,
        of_message: fn(&str) -> ErrorKind,
    ) -> Self {
        let kind = kind_of_diesel(&error, of_message);
        if kind == ErrorKind::Poison {
            let text = error.to_string();
            // What stands behind these words is a name of the schema, not a value.
            let reason = if text.contains("constraint failed: ") {
                text
            } else {
                without_quotes(&text)
            };
            return Self::new(kind, format!("{database} refuses the data: {reason}"));
        }
        Self::new(kind, format!("{database}: {error}")).with_source(error)
    }
}

#[cfg(feature = "postgres")]
impl From<tokio_postgres::Error> for StoreError {
    fn from(error: tokio_postgres::Error) -> Self {
        let Some(db) = error.as_db_error() else {
            let kind = kind_of_connection_error(&error);
            let message = match error.source() {
                Some(cause) => format!("PostgreSQL: {error}: {cause}"),
                None => format!("PostgreSQL: {error}"),
            };
            return Self::new(kind, message).with_source(error);
        };
        let code = db.code().code().to_owned();
        let kind = if is_stale_plan(db) {
            ErrorKind::Outage
        } else {
            kind_of_sqlstate(&code)
        };
        let mut classified = if kind == ErrorKind::Poison {
            // Values are quoted in the message, so only its beginning is kept; names of the schema,
            // which say where to look, come in fields of their own.
            let mut reason = without_quotes(db.message());
            for (what, name) in [
                ("table", db.table()),
                ("column", db.column()),
                ("constraint", db.constraint()),
            ] {
                if let Some(name) = name {
                    reason.push_str(&format!(", {what} {name}"));
                }
            }
            Self::new(
                kind,
                format!("PostgreSQL refuses the data: {reason} (SQLSTATE {code})"),
            )
        } else {
            let message = format!("PostgreSQL: {} (SQLSTATE {code})", db.message());
            Self::new(kind, message).with_source(error)
        };
        if code == QUERY_CANCELED {
            classified.cause = Cause::Timeout;
        }
        classified.sqlstate = Some(code);
        classified
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use diesel::result::{DatabaseErrorKind, Error as DieselError};

    fn unknown(message: &str) -> DieselError {
        DieselError::DatabaseError(DatabaseErrorKind::Unknown, Box::new(message.to_owned()))
    }

    #[test]
    fn sqlite_messages_are_sorted() {
        let cases = [
            ("disk I/O error", ErrorKind::Outage),
            ("database or disk is full", ErrorKind::Operator),
            ("attempt to write a readonly database", ErrorKind::Operator),
            ("unable to open database file", ErrorKind::Operator),
            ("no such table: user_interactions", ErrorKind::Operator),
            ("table t has no column named x", ErrorKind::Operator),
            ("file is not a database", ErrorKind::Operator),
            ("database is locked", ErrorKind::Transient),
            ("database table is locked", ErrorKind::Transient),
            ("out of memory", ErrorKind::Transient),
            ("string or blob too big", ErrorKind::Poison),
            ("datatype mismatch", ErrorKind::Poison),
            ("CHECK constraint failed: t", ErrorKind::Poison),
        ];
        for (message, kind) in cases {
            assert_eq!(
                StoreError::sqlite(unknown(message)).kind(),
                kind,
                "{message}"
            );
        }
        let unique = DieselError::DatabaseError(
            DatabaseErrorKind::UniqueViolation,
            Box::new("UNIQUE constraint failed: t.x".to_owned()),
        );
        assert_eq!(StoreError::sqlite(unique).kind(), ErrorKind::Poison);
    }

    #[test]
    fn failed_reads_of_postgres_are_sorted_as_far_as_they_show() {
        let closed = DieselError::DatabaseError(
            DatabaseErrorKind::UnableToSendCommand,
            Box::new("x".to_owned()),
        );
        assert_eq!(StoreError::postgres_read(closed).kind(), ErrorKind::Outage);
        for (message, kind) in [
            (
                "relation \"user_interactions\" does not exist",
                ErrorKind::Operator,
            ),
            (
                "permission denied for table user_interactions",
                ErrorKind::Operator,
            ),
            (
                "terminating connection due to administrator command",
                ErrorKind::Outage,
            ),
            (
                "canceling statement due to statement timeout",
                ErrorKind::Transient,
            ),
        ] {
            assert_eq!(
                StoreError::postgres_read(unknown(message)).kind(),
                kind,
                "{message}"
            );
        }
    }

    #[test]
    fn what_it_was_about_stands_before_the_reason() {
        let error = StoreError::new(ErrorKind::Outage, "connection closed").context("reading");
        assert_eq!(error.to_string(), "reading: connection closed");
        assert_eq!(error.sqlstate(), None);
        assert!(error.source().is_none());
    }
}

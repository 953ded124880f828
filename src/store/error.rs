//! What can go wrong in a store, sorted once into the four kinds that decide what follows.
//!
//! Nothing else in the crate looks at an SQLSTATE or at the text of a database error.

mod sorting;

pub use sorting::kind_of_sqlstate;
use sorting::{
    kind_of_connection_error, kind_of_diesel, kind_of_postgres_message, kind_of_sqlite_message,
    without_quotes,
};
use std::error::Error;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

/// What a failure means for the work that met it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ErrorKind {
    /// The store is away: pause, and go on when it is back. Spends no attempt.
    Outage,
    /// Somebody has to act (schema missing, no permission, disk full): pause and alarm.
    Operator,
    /// It may work the next time: try again, up to the attempts allowed.
    Transient,
    /// This very content is refused, whatever one does.
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

/// A failure of a store, sorted.
///
/// Its `Display` is a sentence for a log line or an error response and holds nothing of an event's
/// content. The same goes for the chain below it: where the database quotes the refused value in
/// its details (SQLSTATE classes 22 and 23), only the sentence is kept.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{message}")]
pub struct StoreError {
    kind: ErrorKind,
    message: String,
    sqlstate: Option<String>,
    // Shared, because a failed commit is the failure of every command in it.
    #[source]
    source: Option<Arc<dyn Error + Send + Sync>>,
}

impl StoreError {
    /// An error of this kind, with a sentence that says what happened.
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self {
            kind,
            message: message.into(),
            sqlstate: None,
            source: None,
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

    /// What follows from it.
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }

    /// PostgreSQL's five-character code, where it gave one.
    pub fn sqlstate(&self) -> Option<&str> {
        self.sqlstate.as_deref()
    }

    /// No connection became free, or could be made, in time.
    pub(crate) fn no_connection_within(limit: Duration) -> Self {
        Self::new(
            ErrorKind::Outage,
            format!("no connection within {}", humantime::format_duration(limit)),
        )
    }

    /// The server was asked and has not answered.
    pub(crate) fn no_answer_within(limit: Duration) -> Self {
        Self::new(
            ErrorKind::Outage,
            format!(
                "no answer from PostgreSQL within {}",
                humantime::format_duration(limit)
            ),
        )
    }

    /// Sorts an SQLite failure that diesel reports. diesel keeps only the text of most result
    /// codes; the texts are constants of SQLite (`sqlite3ErrStr`), not subject to locale.
    pub(crate) fn sqlite(error: diesel::result::Error) -> Self {
        Self::diesel("SQLite", error, kind_of_sqlite_message)
    }

    /// Sorts a PostgreSQL failure that diesel-async reports. It drops the SQLSTATE, so this is for
    /// reads only, where the kind decides no event's fate: what it cannot tell is transient.
    pub(crate) fn postgres_read(error: diesel::result::Error) -> Self {
        Self::diesel("PostgreSQL", error, kind_of_postgres_message)
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
        let kind = kind_of_sqlstate(&code);
        let mut sorted = if kind == ErrorKind::Poison {
            // Values are quoted in the message, so only its beginning is kept; names of the schema
            // come in fields of their own, and without them nobody would know what to mend.
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
        sorted.sqlstate = Some(code);
        sorted
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

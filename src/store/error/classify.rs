//! Classification by SQLSTATE where there is one, else by the constants of driver and database.

use super::ErrorKind;
#[cfg(feature = "postgres")]
use std::error::Error;
#[cfg(feature = "postgres")]
use tokio_postgres::error::{DbError, SqlState};

/// `not_null_violation`.
#[cfg(feature = "postgres")]
pub(super) const NOT_NULL_VIOLATION: &str = "23502";

/// `query_canceled`: the statement ran into `statement_timeout`, or was cancelled by hand.
#[cfg(feature = "postgres")]
pub(super) const QUERY_CANCELED: &str = "57014";

/// Classifies PostgreSQL's code for an error.
pub fn kind_of_sqlstate(code: &str) -> ErrorKind {
    match code {
        // Shut down by an administrator, crashed, starting up, database dropped, idle too long.
        "57P01" | "57P02" | "57P03" | "57P04" | "57P05" | "53300" => ErrorKind::Outage,
        // Disk full, configured limit reached, read-only, damaged files, wrong configuration.
        "53100" | "53400" | "25006" | "XX001" | "XX002" | "F0000" => ErrorKind::Operator,
        // An object in the wrong state.
        "55000" => ErrorKind::Operator,
        // The server does not know a statement that this connection has prepared, as behind a
        // pooler: another connection may do.
        "26000" => ErrorKind::Outage,
        _ => match code.get(..2) {
            // Lost connection; out of memory or connections.
            Some("08" | "53") => ErrorKind::Outage,
            // Access denied, no such database, no such schema, I/O error of the server; a schema
            // that is not the one this release knows, no permission for it, or objects of the
            // operator's that depend on it.
            Some("28" | "2B" | "3D" | "3F" | "42" | "58") => ErrorKind::Operator,
            // Wrong data, violated constraint, beyond what an index or a row can hold.
            Some("22" | "23" | "54") => ErrorKind::Poison,
            _ => ErrorKind::Transient,
        },
    }
}

/// Whether a statement met a lock, a time limit or a concurrent transaction: `lock_not_available`,
/// `query_canceled` or class 40, transaction rollback.
#[cfg(feature = "postgres")]
pub(super) fn is_lock_or_time_limit(code: &str) -> bool {
    code == "55P03" || code == QUERY_CANCELED || code.starts_with("40")
}

/// Whether a prepared statement outlived a change of the schema. The connection is of no more use;
/// the code alone, `feature_not_supported`, does not say so, and the message is in the language of
/// `lc_messages`.
#[cfg(feature = "postgres")]
pub(super) fn is_stale_plan(error: &DbError) -> bool {
    *error.code() == SqlState::FEATURE_NOT_SUPPORTED
        && error.routine() == Some("RevalidateCachedQuery")
}

/// Whether a row has no partition: PostgreSQL reports a violated check without a constraint's name.
#[cfg(feature = "postgres")]
pub(crate) fn is_missing_partition(error: &tokio_postgres::Error) -> bool {
    error.as_db_error().is_some_and(|error| {
        *error.code() == SqlState::CHECK_VIOLATION && error.constraint().is_none()
    })
}

/// Classifies an error of the connection, which has no code of the server.
#[cfg(feature = "postgres")]
pub(super) fn kind_of_connection_error(error: &tokio_postgres::Error) -> ErrorKind {
    if error.is_closed() {
        return ErrorKind::Outage;
    }
    let mut cause = error.source();
    while let Some(current) = cause {
        // A rejected certificate comes wrapped in an I/O error, whose `source` skips it.
        let rejected = current.is::<rustls::Error>()
            || current
                .downcast_ref::<std::io::Error>()
                .and_then(std::io::Error::get_ref)
                .is_some_and(|inner| inner.is::<rustls::Error>());
        if rejected {
            return ErrorKind::Operator;
        }
        if current.is::<std::io::Error>() {
            return ErrorKind::Outage;
        }
        cause = current.source();
    }
    // tokio-postgres keeps its own kinds private; their texts are constants.
    let text = error.to_string();
    let starts = |prefixes: &[&str]| prefixes.iter().any(|prefix| text.starts_with(prefix));
    if starts(&["error connecting", "error communicating", "timeout"]) {
        ErrorKind::Outage
    } else if starts(&["error performing TLS", "authentication", "invalid con"]) {
        ErrorKind::Operator
    } else if starts(&["error serializing parameter"]) {
        ErrorKind::Poison
    } else {
        ErrorKind::Transient
    }
}

/// Classifies diesel's errors, with `of_message` for those it gives no kind.
pub(super) fn kind_of_diesel(
    error: &diesel::result::Error,
    of_message: fn(&str) -> ErrorKind,
) -> ErrorKind {
    use diesel::result::DatabaseErrorKind;
    use diesel::result::Error;
    match error {
        Error::DatabaseError(kind, information) => match kind {
            DatabaseErrorKind::UnableToSendCommand | DatabaseErrorKind::ClosedConnection => {
                ErrorKind::Outage
            }
            DatabaseErrorKind::ReadOnlyTransaction => ErrorKind::Operator,
            DatabaseErrorKind::SerializationFailure => ErrorKind::Transient,
            DatabaseErrorKind::UniqueViolation
            | DatabaseErrorKind::ForeignKeyViolation
            | DatabaseErrorKind::RestrictViolation
            | DatabaseErrorKind::NotNullViolation
            | DatabaseErrorKind::CheckViolation
            | DatabaseErrorKind::ExclusionViolation => ErrorKind::Poison,
            _ => of_message(information.message()),
        },
        // A NUL inside a C string, or a value too large to bind.
        Error::InvalidCString(_) | Error::SerializationError(_) => ErrorKind::Poison,
        Error::RollbackErrorOnCommit { commit_error, .. } => {
            kind_of_diesel(commit_error, of_message)
        }
        _ => ErrorKind::Transient,
    }
}

/// Classifies the text of an SQLite result code.
#[cfg(feature = "sqlite")]
pub(super) fn kind_of_sqlite_message(message: &str) -> ErrorKind {
    const OUTAGE: &[&str] = &["disk I/O error"];
    const OPERATOR: &[&str] = &[
        "database or disk is full",
        "attempt to write a readonly database",
        "unable to open database file",
        "file is not a database",
        "database disk image is malformed",
        "malformed database schema",
        "access permission denied",
        "not authorized",
        "no such table",
        "no such column",
        "no column named",
    ];
    const POISON: &[&str] = &[
        "constraint failed",
        "string or blob too big",
        "datatype mismatch",
        "malformed JSON",
    ];
    classify_text(message, OUTAGE, OPERATOR, POISON)
}

/// Classifies PostgreSQL's English texts. In another language (`lc_messages`) every text is
/// `Transient`.
#[cfg(feature = "postgres")]
pub(super) fn kind_of_postgres_message(message: &str) -> ErrorKind {
    const OUTAGE: &[&str] = &[
        "terminating connection",
        "the database system is",
        "connection closed",
        "too many clients",
    ];
    const OPERATOR: &[&str] = &["does not exist", "permission denied", "No space left"];
    classify_text(message, OUTAGE, OPERATOR, &[])
}

/// Classifies the text of either database; theirs have nothing in common.
pub(super) fn kind_of_message(message: &str) -> ErrorKind {
    #[cfg(feature = "sqlite")]
    if kind_of_sqlite_message(message) != ErrorKind::Transient {
        return kind_of_sqlite_message(message);
    }
    #[cfg(feature = "postgres")]
    return kind_of_postgres_message(message);
    #[cfg(not(feature = "postgres"))]
    ErrorKind::Transient
}

fn classify_text(message: &str, outage: &[&str], operator: &[&str], poison: &[&str]) -> ErrorKind {
    // What is quoted may be a value, with any words in it.
    let message = match (message.find('"'), message.rfind('"')) {
        (Some(first), Some(last)) => {
            let (before, behind) = (message.get(..first), message.get(last..));
            &[before.unwrap_or_default(), behind.unwrap_or_default()].concat()
        }
        _ => message,
    };
    let has = |texts: &[&str]| texts.iter().any(|text| message.contains(text));
    if has(outage) {
        ErrorKind::Outage
    } else if has(operator) {
        ErrorKind::Operator
    } else if has(poison) {
        ErrorKind::Poison
    } else {
        // Locked, busy, out of memory, interrupted, and whatever is unknown.
        ErrorKind::Transient
    }
}

/// The part of a database's message before the first value it quotes.
pub(super) fn without_quotes(message: &str) -> String {
    let end = message.find(['"', '\'', ':']).unwrap_or(message.len());
    message.get(..end).unwrap_or_default().trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_class_of_sqlstate_has_its_kind() {
        let cases: &[(ErrorKind, &[&str])] = &[
            (
                ErrorKind::Outage,
                &[
                    "08000", "08006", "57P01", "57P02", "57P03", "57P05", "53300", "53200", "26000",
                ],
            ),
            (
                ErrorKind::Operator,
                &[
                    "2BP01", "42P01", "42501", "42703", "42804", "428C9", "42601", "3F000",
                    "28000", "28P01", "3D000", "53100", "25006", "58030", "XX001",
                ],
            ),
            (
                ErrorKind::Transient,
                &[
                    "40001", "40P01", "55P03", "57014", "XX000", "0A000", "", "?",
                ],
            ),
            (
                ErrorKind::Poison,
                &[
                    "22001", "22021", "22P02", "22P05", "22008", "23502", "23505", "23514", "54000",
                ],
            ),
        ];
        for (kind, codes) in cases {
            for code in *codes {
                assert_eq!(kind_of_sqlstate(code), *kind, "{code}");
            }
        }
    }

    #[test]
    fn the_words_of_a_quoted_value_say_nothing() {
        for (message, kind) in [
            ("relation \"totals\" does not exist", ErrorKind::Operator),
            (
                "invalid input syntax for type integer: \"it \"does not exist\"\"",
                ErrorKind::Transient,
            ),
            (
                "invalid input syntax for type json: \"disk I/O error\"",
                ErrorKind::Transient,
            ),
        ] {
            assert_eq!(kind_of_message(message), kind, "{message}");
        }
    }

    #[test]
    fn a_refused_value_is_not_repeated() {
        assert_eq!(
            without_quotes("invalid input syntax for type uuid: \"secret\""),
            "invalid input syntax for type uuid"
        );
        assert_eq!(
            without_quotes("unsupported Unicode escape sequence"),
            "unsupported Unicode escape sequence"
        );
    }
}

//! The sorting itself: by SQLSTATE where there is one, by the constants of driver and database
//! where there is none.

use super::ErrorKind;
use std::error::Error;

/// Sorts PostgreSQL's code for an error.
pub fn kind_of_sqlstate(code: &str) -> ErrorKind {
    match code {
        // Shut down by an administrator, crashed, starting up, database dropped, idle too long.
        "57P01" | "57P02" | "57P03" | "57P04" | "57P05" | "53300" => ErrorKind::Outage,
        // Disk full, configured limit reached, read-only, damaged files, wrong configuration.
        "53100" | "53400" | "25006" | "XX001" | "XX002" | "F0000" => ErrorKind::Operator,
        // Undefined table, column, function or object; no permission; wrong object type.
        "42P01" | "42703" | "42883" | "42704" | "42501" | "42809" | "55000" => ErrorKind::Operator,
        // A prepared statement outlived a change of the schema.
        "0A000" | "26000" => ErrorKind::Transient,
        _ => match code.get(..2) {
            // Out of memory or connections: it has not the means now.
            Some("08" | "53") => ErrorKind::Outage,
            // Access denied, no such database, no such schema, I/O error of the server.
            Some("28" | "3D" | "3F" | "58") => ErrorKind::Operator,
            // Wrong data, violated constraint, beyond what an index or a row can hold.
            Some("22" | "23" | "54") => ErrorKind::Poison,
            _ => ErrorKind::Transient,
        },
    }
}

/// Sorts a failure that is not an answer of the server but of the way to it.
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

/// Sorts diesel's errors, with `of_message` for those it gives no kind.
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

/// Sorts the text of an SQLite result code.
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
    sort_by_text(message, OUTAGE, OPERATOR, POISON)
}

/// Sorts PostgreSQL's English texts. `lc_messages` may be another language: then the answer is
/// `Transient`.
pub(super) fn kind_of_postgres_message(message: &str) -> ErrorKind {
    const OUTAGE: &[&str] = &[
        "terminating connection",
        "the database system is",
        "connection closed",
        "too many clients",
    ];
    const OPERATOR: &[&str] = &["does not exist", "permission denied", "No space left"];
    sort_by_text(message, OUTAGE, OPERATOR, &[])
}

fn sort_by_text(message: &str, outage: &[&str], operator: &[&str], poison: &[&str]) -> ErrorKind {
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
    fn every_class_of_sqlstate_is_sorted() {
        let cases: &[(ErrorKind, &[&str])] = &[
            (
                ErrorKind::Outage,
                &[
                    "08000", "08006", "57P01", "57P02", "57P03", "57P05", "53300", "53200",
                ],
            ),
            (
                ErrorKind::Operator,
                &[
                    "42P01", "42501", "42703", "3F000", "28000", "28P01", "3D000", "53100",
                    "25006", "58030", "XX001",
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

//! What PostgreSQL refuses a replication client, by its code.

/// What PostgreSQL refuses a replication client, by its code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ServerRefusal {
    /// The object is not there.
    Missing,
    /// Another connection uses the object.
    InUse,
    /// The object, or the server, is in a state that does not allow it.
    WrongState,
    /// The user lacks a right.
    NoRight,
    /// The user is not let in.
    NotAdmitted,
    /// A file of the log is gone.
    WalRemoved,
    /// Anything else.
    Other,
}

impl ServerRefusal {
    /// Sorts a code.
    pub fn of(code: &str) -> Self {
        match code {
            "42704" => ServerRefusal::Missing,
            "55006" => ServerRefusal::InUse,
            "55000" => ServerRefusal::WrongState,
            "42501" => ServerRefusal::NoRight,
            "28000" | "28P01" => ServerRefusal::NotAdmitted,
            "58P01" => ServerRefusal::WalRemoved,
            _ => ServerRefusal::Other,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_sorted() {
        for (code, refusal) in [
            ("42704", ServerRefusal::Missing),
            ("55006", ServerRefusal::InUse),
            ("55000", ServerRefusal::WrongState),
            ("42501", ServerRefusal::NoRight),
            ("28P01", ServerRefusal::NotAdmitted),
            ("58P01", ServerRefusal::WalRemoved),
            ("42P01", ServerRefusal::Other),
        ] {
            assert_eq!(ServerRefusal::of(code), refusal, "{code}");
        }
    }
}

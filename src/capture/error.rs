//! Errors of capture: of which kind they are, and what an operator does about them.

use crate::store::error::ServerRefusal;
use crate::store::{ErrorKind, StoreError};
use std::error::Error;
use std::fmt;

/// What is wrong with a capture, where more follows from it than from the error's kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CaptureFault {
    /// The slot is not there: dropped, or lost in a fail-over. Changes are missing, and a new snapshot is needed.
    SlotMissing,
    /// The server has removed the log that the slot needs, or has invalidated the slot: the same follows.
    SlotLost,
    /// Another connection reads the slot.
    SlotInUse,
    /// The publication is not there, or was not yet at the position where the slot is.
    PublicationMissing,
    /// The server does not write what logical replication needs.
    WalLevel,
    /// The user lacks a right.
    NoRight,
    /// A table cannot be captured as it is.
    Table,
    /// Anything else; the kind says what follows.
    Other,
}

/// An error of capture. Its `Display` is a sentence for an operator, without values of rows.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct CaptureError {
    kind: ErrorKind,
    fault: CaptureFault,
    message: String,
    #[source]
    source: Option<Box<dyn Error + Send + Sync>>,
}

impl CaptureError {
    /// An error of this kind, with a sentence that says what happened.
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self {
            kind,
            fault: CaptureFault::Other,
            message: message.into(),
            source: None,
        }
    }

    /// What an operator must put right.
    pub fn operator(fault: CaptureFault, message: impl Into<String>) -> Self {
        Self {
            fault,
            ..Self::new(ErrorKind::Operator, message)
        }
    }

    /// The server sent what cannot be read. A server that speaks another protocol does so each time.
    pub(super) fn unreadable(what: &str) -> Self {
        let message = format!("the replication stream of PostgreSQL has {what}");
        Self::new(ErrorKind::Operator, message)
    }

    /// The connection failed.
    pub(super) fn connection(what: &str, error: std::io::Error) -> Self {
        let message = format!("{what}: {error}");
        Self {
            source: Some(Box::new(error)),
            ..Self::new(ErrorKind::Outage, message)
        }
    }

    /// What the server answered, while `what` was done.
    pub(super) fn server(what: &str, answer: &ServerAnswer) -> Self {
        let error = StoreError::of_server(&answer.code, &answer.told());
        Self::classified(error, &answer.message).context(what)
    }

    /// The same error with what was being done: `context: message`.
    #[must_use]
    pub fn context(mut self, context: &str) -> Self {
        self.message = format!("{context}: {}", self.message);
        self
    }

    /// The same error with advice for the operator.
    #[must_use]
    pub(super) fn advice(mut self, fault: CaptureFault, advice: &str) -> Self {
        self.fault = fault;
        self.message = format!("{}; {advice}", self.message);
        self
    }

    /// Its kind, from which follows whether to wait, to try again or to stop.
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }

    /// What is wrong.
    pub fn fault(&self) -> CaptureFault {
        self.fault
    }

    /// What the server's code says about replication, with advice.
    fn classified(error: StoreError, message: &str) -> Self {
        let refusal = error.sqlstate().map(ServerRefusal::of);
        let kind = match error.kind() {
            // There is no row here that could be to blame.
            ErrorKind::Poison => ErrorKind::Operator,
            kind => kind,
        };
        let classified = Self {
            kind,
            fault: CaptureFault::Other,
            message: error.to_string(),
            source: Some(Box::new(error)),
        };
        match refusal {
            Some(ServerRefusal::NoRight) => classified.advice(
                CaptureFault::NoRight,
                "grant what is missing: the role needs LOGIN, REPLICATION, SELECT on the captured tables, and the \
                 ownership of the publication",
            ),
            Some(ServerRefusal::NotAdmitted) => classified.advice(
                CaptureFault::NoRight,
                "check user and password in the URL, and that pg_hba.conf admits the user to this database",
            ),
            Some(ServerRefusal::InUse) => classified.transient().advice(
                CaptureFault::SlotInUse,
                "another process reads the slot; it is released when that one ends, or by \
                 pg_terminate_backend of the process id that pg_replication_slots shows",
            ),
            Some(ServerRefusal::Missing) if message.contains("publication") => classified.advice(
                CaptureFault::PublicationMissing,
                "the publication is missing, or was made after the position of the slot; make the capture anew with a \
                 new slot and a new snapshot",
            ),
            Some(ServerRefusal::Missing) => classified.advice(
                CaptureFault::SlotMissing,
                "it was dropped or did not survive a fail-over, so changes are missing; take a new snapshot",
            ),
            Some(ServerRefusal::WalRemoved) => classified.slot_lost(),
            Some(ServerRefusal::WrongState) if message.contains("wal_level") => classified.advice(
                CaptureFault::WalLevel,
                "set wal_level = logical in postgresql.conf and restart PostgreSQL",
            ),
            // "can no longer get changes from", "cannot read from logical replication slot", and from 17 on
            // "can no longer access".
            Some(ServerRefusal::WrongState)
                if message.contains("no longer") || message.contains("cannot read from") =>
            {
                classified.slot_lost()
            }
            _ => classified,
        }
    }

    fn slot_lost(self) -> Self {
        self.advice(
            CaptureFault::SlotLost,
            "PostgreSQL has removed what the slot had not read yet (max_slot_wal_keep_size, \
             idle_replication_slot_timeout), so changes are missing; drop the slot and take a new snapshot",
        )
    }

    fn transient(self) -> Self {
        Self {
            kind: ErrorKind::Transient,
            ..self
        }
    }
}

impl From<StoreError> for CaptureError {
    fn from(error: StoreError) -> Self {
        let message = error.to_string();
        Self::classified(error, &message)
    }
}

impl From<tokio_postgres::Error> for CaptureError {
    fn from(error: tokio_postgres::Error) -> Self {
        StoreError::from(error).into()
    }
}

/// An error or a notice of the server.
#[derive(Debug, Clone, Default)]
pub(super) struct ServerAnswer {
    pub(super) code: String,
    pub(super) message: String,
    pub(super) detail: Option<String>,
}

impl ServerAnswer {
    fn told(&self) -> String {
        match &self.detail {
            Some(detail) => format!("{} ({detail})", self.message),
            None => self.message.clone(),
        }
    }
}

impl fmt::Display for ServerAnswer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.told())
    }
}

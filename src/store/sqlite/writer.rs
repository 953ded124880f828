//! The one thread that writes. SQLite has one writer at a time anyway; a thread of its own turns
//! the commands of many callers into few commits.

use super::command::{CommandReply, StoreCommand};
use super::connection::{Purpose, SqliteFailure, open};
use crate::store::{ErrorKind, StoreError};
use diesel::SqliteConnection;
use diesel::connection::{AnsiTransactionManager, SimpleConnection, TransactionManager};
use std::path::{Path, PathBuf};
use std::thread::JoinHandle;
use tokio::sync::mpsc;

/// Most rows in one transaction, so that the first command in it does not wait long for the last.
const MAX_ROWS: usize = 5_000;

/// The queue to the writer's thread.
///
/// Dropping it closes the queue and waits until the thread has done what is in it, checkpointed
/// and closed the file.
pub(super) struct Writer {
    queue: Option<mpsc::Sender<StoreCommand>>,
    thread: Option<JoinHandle<()>>,
}

impl Writer {
    /// Opens the file and starts the thread. At most `queue_depth` commands wait; who comes then,
    /// waits to be let in.
    pub(super) fn start(path: PathBuf, queue_depth: usize) -> Result<Self, StoreError> {
        let connection = open(&path, Purpose::Write)?;
        let (queue, commands) = mpsc::channel(queue_depth.max(1));
        let thread = std::thread::Builder::new()
            .name("sqlite-writer".to_owned())
            .spawn(move || run(&path, connection, commands))
            .map_err(|error| {
                let message = "cannot start the SQLite writer";
                StoreError::new(ErrorKind::Operator, message).with_source(error)
            })?;
        Ok(Self {
            queue: Some(queue),
            thread: Some(thread),
        })
    }

    /// Hands in work on about `weight` rows and waits until it is committed.
    pub(super) async fn ask<T: Send + 'static>(
        &self,
        weight: usize,
        work: impl FnOnce(&mut SqliteConnection) -> Result<T, SqliteFailure> + Send + 'static,
    ) -> Result<T, StoreError> {
        let (command, answer) = StoreCommand::new(weight, work);
        let Some(queue) = &self.queue else {
            return Err(stopped());
        };
        if queue.send(command).await.is_err() {
            return Err(stopped());
        }
        answer.await.unwrap_or_else(|_| {
            let message =
                "the SQLite writer dropped a command; whether it was committed is unknown";
            Err(StoreError::new(ErrorKind::Transient, message))
        })
    }

    /// Whether the thread is there.
    pub(super) fn is_running(&self) -> bool {
        self.queue.as_ref().is_some_and(|queue| !queue.is_closed())
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        drop(self.queue.take());
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the SQLite writer had crashed");
        }
    }
}

/// The error for a command that the writer no longer takes.
pub(super) fn stopped() -> StoreError {
    StoreError::new(ErrorKind::Outage, "the SQLite writer has stopped")
}

fn run(path: &Path, connection: SqliteConnection, mut commands: mpsc::Receiver<StoreCommand>) {
    let mut connection = Some(connection);
    while let Some(first) = commands.blocking_recv() {
        let mut rows = first.weight;
        let mut group = vec![first];
        while rows < MAX_ROWS
            && let Ok(next) = commands.try_recv()
        {
            rows = rows.saturating_add(next.weight);
            group.push(next);
        }
        connection = match connection.map_or_else(|| open(path, Purpose::Write), Ok) {
            Ok(open) => commit(open, group),
            Err(error) => {
                for command in group {
                    command.refuse(error.clone());
                }
                None
            }
        };
    }
    if let Some(mut connection) = connection
        && let Err(error) = connection.batch_execute("PRAGMA wal_checkpoint(TRUNCATE)")
    {
        // The write-ahead log stays beside the file and is read at the next start.
        tracing::warn!(%error, "could not checkpoint at the end");
    }
}

/// Runs the commands in one transaction and answers them when it is committed. Gives the
/// connection back unless it is in an unknown state.
fn commit(mut connection: SqliteConnection, group: Vec<StoreCommand>) -> Option<SqliteConnection> {
    let mut answers: Vec<CommandReply> = Vec::with_capacity(group.len());
    let mut waiting = group.into_iter();
    let committed = connection.immediate_transaction(|connection| {
        for command in waiting.by_ref() {
            answers.push(command.run(connection));
            if depth(connection) != Some(1) {
                // SQLite ends a transaction by itself when disk or memory run out. That is no
                // command's fault, so it must spend no attempt of the others.
                let message = "SQLite gave up the transaction";
                return Err(SqliteFailure(StoreError::new(ErrorKind::Outage, message)));
            }
        }
        Ok(())
    });
    let committed = committed.map_err(|SqliteFailure(error)| error);
    for answer in answers {
        answer(committed.clone());
    }
    if let Err(error) = committed {
        for command in waiting {
            command.refuse(error.clone());
        }
    }
    (depth(&mut connection) == Some(0)).then_some(connection)
}

/// How many transactions and savepoints are open; `None` if diesel has lost count.
fn depth(connection: &mut SqliteConnection) -> Option<u32> {
    let status = AnsiTransactionManager::transaction_manager_status_mut(connection);
    let depth = status.transaction_depth().ok()?;
    Some(depth.map_or(0, std::num::NonZeroU32::get))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::{Event, Rows, Source, id};
    use crate::store::RowOutcome;
    use crate::store::sqlite::migrate;
    use crate::store::sqlite::write::insert;
    use serde_json::value::RawValue;
    use std::sync::Arc;

    fn rows(count: usize, payload: usize) -> Rows {
        let event = || Event {
            event_id: id::fresh(),
            original_id: None,
            producer: Arc::from("tests"),
            user_id: None,
            event_type: "t".to_owned(),
            event_data: RawValue::from_string(format!("{{\"a\":\"{}\"}}", "x".repeat(payload)))
                .unwrap(),
            schema_version: None,
            session_id: None,
            timestamp: None,
            received_at: chrono::Utc::now(),
            source: Source::Http,
        };
        Rows::all(Arc::new((0..count).map(|_| event()).collect()))
    }

    #[tokio::test]
    async fn the_thread_outlives_a_command_that_panics() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log.db");
        migrate(&path).await.unwrap();
        let writer = Writer::start(path, 16).unwrap();
        let write = || {
            let rows = rows(3, 10);
            writer.ask(3, move |connection| insert(connection, &rows))
        };
        let panic = writer.ask(1, |_| -> Result<(), _> { panic!("asked to") });
        let (before, panicked, after) = tokio::join!(write(), panic, write());
        assert_eq!(panicked.unwrap_err().kind(), ErrorKind::Transient);
        assert_eq!(before.unwrap(), [RowOutcome::Stored; 3]);
        assert_eq!(after.unwrap(), [RowOutcome::Stored; 3]);
        assert!(writer.is_running());
    }

    #[tokio::test]
    async fn a_full_disk_fails_what_does_not_fit_and_passes() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log.db");
        migrate(&path).await.unwrap();
        let mut connection = open(&path, Purpose::Write).unwrap();
        connection
            .batch_execute("PRAGMA max_page_count = 60")
            .unwrap();
        let command = |count, payload| {
            let rows = rows(count, payload);
            StoreCommand::new(count, move |connection| insert(connection, &rows))
        };
        let (small, small_answer) = command(2, 10);
        let (large, large_answer) = command(500, 4_000);
        let (last, last_answer) = command(2, 10);
        let mut connection = commit(connection, vec![small, large, last])
            .unwrap_or_else(|| open(&path, Purpose::Write).unwrap());
        let error = large_answer.await.unwrap().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Operator, "{error}");
        // Whatever SQLite did with the transaction, an answer is what the file says.
        let mut expected = 0;
        for answer in [small_answer, last_answer] {
            match answer.await.unwrap() {
                Ok(outcomes) => expected += outcomes.len(),
                Err(error) => assert_eq!(error.kind(), ErrorKind::Outage, "{error}"),
            }
        }
        let page =
            crate::store::sqlite::read::list(&mut connection, &Default::default(), None, 10_000);
        assert_eq!(page.unwrap().events.len(), expected);
        connection
            .batch_execute("PRAGMA max_page_count = 100000")
            .unwrap();
        let (again, answer) = command(500, 4_000);
        assert!(commit(connection, vec![again]).is_some());
        assert_eq!(
            answer.await.unwrap().unwrap(),
            vec![RowOutcome::Stored; 500]
        );
    }
}

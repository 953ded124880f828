//! Telling the server how far everything is durable here.

use super::frames::SocketWriter;
use super::{CaptureError, Lsn};
use crate::capture::fields::EPOCH_MICROS;
use bytes::{BufMut, BytesMut};
use chrono::Utc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;
use tokio::io::AsyncWriteExt;
use tokio::runtime::Handle;
use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep_until, timeout, timeout_at};

/// How often the server is told without being asked.
const INTERVAL: Duration = Duration::from_secs(10);

/// The least time between two reports. A server that is stopping asks again as soon as it is answered.
const PAUSE: Duration = Duration::from_millis(100);

/// How long the last report may take.
const LAST: Duration = Duration::from_secs(1);

/// The positions to report.
#[derive(Default)]
struct Positions {
    /// Up to here everything has arrived.
    received: AtomicU64,
    /// Up to here everything is durable.
    confirmed: AtomicU64,
    ending: AtomicBool,
    /// A report is due at once.
    due: Notify,
}

/// The reports of a stream. A task of their own sends them, so that they go out while the stream's reader does
/// something else: the server ends a connection that says nothing for `wal_sender_timeout`.
pub(super) struct Feedback {
    positions: Arc<Positions>,
    /// `None` once its end was noticed.
    task: Option<JoinHandle<std::io::Result<()>>>,
}

impl Feedback {
    /// Begins to report, at least every third of `wal_sender_timeout` if there is one.
    pub(super) fn start(writer: SocketWriter, sender_timeout: Option<Duration>) -> Self {
        let positions = Arc::new(Positions::default());
        let interval = sender_timeout.map_or(INTERVAL, |limit| (limit / 3).min(INTERVAL));
        let task = report(writer, Arc::clone(&positions), interval.max(PAUSE));
        Self {
            positions,
            // Its end, however it comes, is noticed by the stream's reader.
            task: Some(Handle::current().spawn(task)),
        }
    }

    pub(super) fn received(&self, lsn: Lsn) {
        self.positions.received.fetch_max(lsn.0, Ordering::Relaxed);
    }

    /// Reports a durable position at once, or [`PAUSE`] after the last report: the server keeps its log from there.
    pub(super) fn confirm(&self, lsn: Lsn) {
        let before = self.positions.confirmed.fetch_max(lsn.0, Ordering::Relaxed);
        if before < lsn.0 {
            self.positions.due.notify_one();
        }
    }

    pub(super) fn confirmed(&self) -> Lsn {
        Lsn(self.positions.confirmed.load(Ordering::Relaxed))
    }

    /// Answers the server, which asks for a report.
    pub(super) fn answer(&self) {
        self.positions.due.notify_one();
    }

    /// Waits for the end of the reports, which is that of the connection.
    pub(super) async fn ended(&mut self) -> CaptureError {
        let end = match &mut self.task {
            Some(task) => task.await,
            None => Ok(Ok(())),
        };
        self.task = None;
        let error = match end {
            Ok(Err(error)) => error,
            Ok(Ok(())) => std::io::Error::other("the stream is closed"),
            Err(error) => std::io::Error::other(error),
        };
        CaptureError::connection("cannot report to PostgreSQL", error)
    }

    /// Sends the last report and ends the stream.
    pub(super) async fn end(mut self) {
        self.positions.ending.store(true, Ordering::Relaxed);
        self.positions.due.notify_one();
        // What was not reported is read again.
        let _ = timeout(LAST, self.ended()).await;
    }
}

impl Drop for Feedback {
    fn drop(&mut self) {
        if let Some(task) = &self.task {
            task.abort();
        }
    }
}

async fn report(
    mut writer: SocketWriter,
    positions: Arc<Positions>,
    interval: Duration,
) -> std::io::Result<()> {
    loop {
        let sent = Instant::now();
        let due = timeout_at(sent + interval, positions.due.notified())
            .await
            .is_ok();
        let ending = positions.ending.load(Ordering::Relaxed);
        if due && !ending {
            sleep_until(sent + PAUSE).await;
        }
        // When nothing else is due the server is asked, so that an idle one says how far its log goes, and that it
        // is there.
        let mut frame = status(&positions, !due);
        if ending {
            // CopyDone and Terminate.
            frame.put_slice(b"c\0\0\0\x04X\0\0\0\x04");
        }
        writer.write_all(&frame).await?;
        writer.flush().await?;
        if ending {
            return writer.shutdown().await;
        }
    }
}

/// A standby status update.
fn status(positions: &Positions, ask: bool) -> BytesMut {
    let confirmed = positions.confirmed.load(Ordering::Relaxed);
    let received = positions.received.load(Ordering::Relaxed);
    let mut frame = BytesMut::with_capacity(39);
    frame.put_u8(b'd');
    frame.put_u32(38);
    frame.put_u8(b'r');
    frame.put_u64(received.max(confirmed));
    frame.put_u64(confirmed);
    frame.put_u64(confirmed);
    frame.put_i64(Utc::now().timestamp_micros() - EPOCH_MICROS);
    frame.put_u8(u8::from(ask));
    frame
}

//! The stream of a slot: what the server decodes, and what is confirmed to it.

use super::feedback::Feedback;
use super::fields::Fields;
use super::frames::{Frame, FrameReader};
use super::pgoutput::Decoder;
use super::replication::ReplicationConnection;
use super::{CaptureError, Lsn, ReplicationMessage};
use crate::store::ErrorKind;
use postgres_protocol::escape::escape_identifier;
use std::time::Duration;
use tokio::time::{Instant, timeout};

/// How long the server may say nothing at all. It is asked for a sign of life every ten seconds; it gives none while
/// it reads through a large transaction that does not concern the slot.
const SILENCE: Duration = Duration::from_secs(300);

/// How long a server that is stopping is given to be told that everything is durable. It waits for that without end.
const STOPPING: Duration = Duration::from_secs(5);

/// How long the server's reason for an end is waited for.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// Two requests of the server for a report that lie closer together belong to one stop: otherwise it asks only after
/// half its `wal_sender_timeout` without any report.
const PRESSING: Duration = Duration::from_secs(1);

/// The stream of a slot.
///
/// Nothing is read ahead: while [`ReplicationStream::next`] is not called, the server waits. Reports go out all the
/// same.
pub struct ReplicationStream {
    frames: FrameReader,
    feedback: Feedback,
    decoder: Decoder,
    /// Since when the server asks for reports one after the other, and when it asked last.
    pressed: Option<(Instant, Instant)>,
}

impl ReplicationStream {
    pub(super) async fn start(
        mut connection: ReplicationConnection,
        slot: &str,
        publication: &str,
        start: Option<Lsn>,
    ) -> Result<Self, CaptureError> {
        let sender_timeout = sender_timeout(&mut connection).await?;
        // The option is a list of identifiers inside a literal, and the grammar of replication knows no E''.
        let publications = escape_identifier(publication).replace('\'', "''");
        let command = format!(
            "START_REPLICATION SLOT {} LOGICAL {} \
             (proto_version '1', publication_names '{publications}', messages 'true')",
            escape_identifier(slot),
            start.unwrap_or_default(),
        );
        let (frames, writer) = connection.stream(&command).await?;
        let stream = Self {
            frames,
            feedback: Feedback::start(writer, sender_timeout),
            decoder: Decoder::default(),
            pressed: None,
        };
        Ok(stream)
    }

    /// The next message. Dropped before it is ready, nothing is lost.
    ///
    /// # Errors
    /// The connection or the server ended, or the server can no longer decode the slot. The stream is of no more use;
    /// what was not confirmed comes again from a new one.
    pub async fn next(&mut self) -> Result<ReplicationMessage, CaptureError> {
        loop {
            let frame = match self.frames.arrived()? {
                Some(frame) => frame,
                None => self.wait().await?,
            };
            if let Some(message) = self.read(frame)? {
                return Ok(message);
            }
        }
    }

    /// Notes that everything before `lsn` is durable here. The server is told within ten seconds, and will not send it
    /// again.
    pub fn confirm(&self, lsn: Lsn) {
        self.feedback.confirm(lsn);
    }

    /// Up to where everything is confirmed.
    pub fn confirmed(&self) -> Lsn {
        self.feedback.confirmed()
    }

    /// Tells the server what is confirmed, and ends the stream, which releases the slot. What is not told within two
    /// seconds is read again.
    pub async fn close(mut self) {
        self.feedback.end().await;
        let frames = &mut self.frames;
        let ended = async { while frames.next().await.is_ok() {} };
        // Not all that was sent can be read by then, if it is much.
        let _ = timeout(LAST_WORDS, ended).await;
    }

    async fn wait(&mut self) -> Result<Frame, CaptureError> {
        let frames = &mut self.frames;
        tokio::select! {
            biased;
            frame = timeout(SILENCE, frames.next()) => frame.unwrap_or_else(|_| {
                let limit = humantime::format_duration(SILENCE);
                let message = format!("PostgreSQL has said nothing for {limit}");
                Err(CaptureError::new(ErrorKind::Outage, message))
            }),
            // Why the server ended the connection may have arrived all the same.
            error = self.feedback.ended() => {
                timeout(LAST_WORDS, frames.next()).await.unwrap_or(Err(error))
            }
        }
    }

    fn read(&mut self, frame: Frame) -> Result<Option<ReplicationMessage>, CaptureError> {
        match frame.tag {
            b'd' => self.data(Fields(frame.body)),
            b'E' => Err(CaptureError::server(
                "the stream has ended",
                &frame.answer()?,
            )),
            // The server stops: it has sent everything and ends the command.
            b'c' | b'C' | b'Z' => Err(CaptureError::new(
                ErrorKind::Outage,
                "PostgreSQL has ended the stream; it is stopping",
            )),
            b'N' | b'S' => Ok(None),
            _ => Err(CaptureError::unreadable(
                "a frame that does not belong there",
            )),
        }
    }

    fn data(&mut self, mut fields: Fields) -> Result<Option<ReplicationMessage>, CaptureError> {
        match fields.u8()? {
            b'w' => {
                let lsn = fields.lsn()?;
                // End of the log and the server's clock: the same as the start, and of no use.
                fields.take(16)?;
                self.feedback.received(lsn);
                self.pressed = None;
                self.decoder.decode(lsn, fields)
            }
            b'k' => {
                let wal_end = fields.lsn()?;
                fields.take(8)?;
                self.feedback.received(wal_end);
                if fields.u8()? != 0 {
                    self.press()?;
                    self.feedback.answer();
                }
                Ok(Some(ReplicationMessage::Keepalive { wal_end }))
            }
            _ => Err(CaptureError::unreadable("an unknown message")),
        }
    }

    /// Notes that the server asks for a report. A server that is stopping asks all the time, until everything it has
    /// sent is confirmed. What is not durable by then may never be, if it is to be written to that same server.
    fn press(&mut self) -> Result<(), CaptureError> {
        let now = Instant::now();
        let first = match self.pressed {
            Some((first, last)) if now - last < PRESSING => first,
            _ => now,
        };
        self.pressed = Some((first, now));
        if now - first < STOPPING {
            return Ok(());
        }
        Err(CaptureError::new(
            ErrorKind::Outage,
            "PostgreSQL is stopping and waits for the confirmation of what it has sent",
        ))
    }
}

/// The server's limit on the silence of a client; `None` if it has none.
async fn sender_timeout(
    connection: &mut ReplicationConnection,
) -> Result<Option<Duration>, CaptureError> {
    let setting = "SELECT setting FROM pg_catalog.pg_settings WHERE name = 'wal_sender_timeout'";
    let rows = connection.query(setting).await?;
    let millis = rows.into_iter().flatten().next().flatten();
    let millis = millis.and_then(|text| text.parse::<u64>().ok());
    Ok(millis
        .filter(|millis| *millis > 0)
        .map(Duration::from_millis))
}

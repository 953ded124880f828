//! A connection of PostgreSQL's replication protocol: log-in, simple queries, and the start of streaming.
//!
//! tokio-postgres does not speak it. The frames are few; those that a client sends, and SCRAM, are postgres-protocol's.

use super::CaptureError;
use super::authentication::authenticate;
use super::fields::Fields;
use super::frames::{Frame, FrameReader, Socket, SocketWriter};
use super::socket::reach;
use crate::store::ErrorKind;
use bytes::BytesMut;
use postgres_protocol::message::frontend;
use std::time::Duration;
use tokio::io::AsyncWriteExt;
use tokio::time::timeout;
use tokio_postgres::Config;
use tokio_postgres::config::TargetSessionAttrs;
use tokio_postgres_rustls::MakeRustlsConnect;

/// The rows of a query, as texts.
pub type TextRows = Vec<Vec<Option<String>>>;

/// A connection of the replication protocol that does not stream yet.
pub struct ReplicationConnection {
    frames: FrameReader,
    writer: SocketWriter,
    /// How long the log-in and each command may take.
    limit: Duration,
}

impl ReplicationConnection {
    /// Connects to the first of the URL's hosts that takes the connection. That and each command have this limit.
    pub(super) async fn connect(
        config: &Config,
        connector: Option<&MakeRustlsConnect>,
        limit: Duration,
    ) -> Result<Self, CaptureError> {
        let mut failed = None;
        for (at, host) in config.get_hosts().iter().enumerate() {
            let connecting = async {
                let socket = reach(config, connector, host, at).await?;
                Self::log_in_by(socket, config, limit).await
            };
            match within(limit, connecting).await {
                Ok(connection) => return Ok(connection),
                Err(error) => failed = Some(error),
            }
        }
        let error = failed.unwrap_or_else(|| {
            CaptureError::new(
                ErrorKind::Operator,
                "the URL of the captured database names no host",
            )
        });
        Err(error.context("cannot connect for replication"))
    }

    async fn log_in_by(
        socket: Box<dyn Socket>,
        config: &Config,
        limit: Duration,
    ) -> Result<Self, CaptureError> {
        let (reader, writer) = tokio::io::split(socket);
        let mut connection = Self {
            frames: FrameReader::new(reader),
            writer,
            limit,
        };
        connection.log_in(config).await?;
        let wanted = config.get_target_session_attrs();
        if wanted == TargetSessionAttrs::ReadWrite && connection.is_standby().await? {
            return Err(CaptureError::new(
                ErrorKind::Outage,
                "the server is a standby, and the URL asks for target_session_attrs=read-write",
            ));
        }
        Ok(connection)
    }

    async fn log_in(&mut self, config: &Config) -> Result<(), CaptureError> {
        let user = config.get_user().unwrap_or_default();
        let parameters = [
            ("client_encoding", Some("UTF8")),
            ("user", Some(user)),
            ("database", config.get_dbname().or(Some(user))),
            ("replication", Some("database")),
            ("options", config.get_options()),
            ("application_name", config.get_application_name()),
        ];
        let given = parameters
            .into_iter()
            .filter_map(|(name, value)| Some((name, value?)));
        let mut startup = BytesMut::new();
        frontend::startup_message(given, &mut startup).map_err(unwritable)?;
        self.send(&startup).await?;
        authenticate(
            &mut self.frames,
            &mut self.writer,
            user,
            config.get_password(),
        )
        .await?;
        loop {
            let frame = self.frames.next().await?;
            match frame.tag {
                b'Z' => return Ok(()),
                b'E' => return Err(CaptureError::server("cannot log in", &frame.answer()?)),
                _ => {}
            }
        }
    }

    async fn is_standby(&mut self) -> Result<bool, CaptureError> {
        let rows = self.query("SELECT pg_catalog.pg_is_in_recovery()").await?;
        let first = rows.into_iter().flatten().next().flatten();
        Ok(first.as_deref() == Some("t"))
    }

    /// The rows of one query or command. The server takes SQL, too, but no parameters.
    ///
    /// # Errors
    /// The connection failed, or the server refuses.
    pub async fn query(&mut self, command: &str) -> Result<TextRows, CaptureError> {
        within(self.limit, self.ask(command)).await
    }

    async fn ask(&mut self, command: &str) -> Result<TextRows, CaptureError> {
        self.send_query(command).await?;
        let mut rows = TextRows::new();
        let mut refusal = None;
        loop {
            let frame = self.frames.next().await?;
            match frame.tag {
                b'D' => rows.push(row(frame)?),
                b'E' => {
                    refusal = Some(CaptureError::server("the server refuses", &frame.answer()?))
                }
                b'Z' => {
                    return match refusal {
                        Some(refusal) => Err(refusal),
                        None => Ok(rows),
                    };
                }
                _ => {}
            }
        }
    }

    /// Sends the command that begins to stream, and gives the two directions of the stream.
    pub(super) async fn stream(
        mut self,
        command: &str,
    ) -> Result<(FrameReader, SocketWriter), CaptureError> {
        within(self.limit, self.begin(command)).await?;
        Ok((self.frames, self.writer))
    }

    async fn begin(&mut self, command: &str) -> Result<(), CaptureError> {
        self.send_query(command).await?;
        loop {
            let frame = self.frames.next().await?;
            match frame.tag {
                b'W' => return Ok(()),
                b'E' => {
                    let answer = frame.answer()?;
                    return Err(CaptureError::server("cannot read the slot", &answer));
                }
                b'N' | b'S' => {}
                _ => return Err(CaptureError::unreadable("no start of the stream")),
            }
        }
    }

    async fn send_query(&mut self, command: &str) -> Result<(), CaptureError> {
        let mut query = BytesMut::new();
        frontend::query(command, &mut query).map_err(unwritable)?;
        self.send(&query).await
    }

    async fn send(&mut self, bytes: &[u8]) -> Result<(), CaptureError> {
        let failed = |error| CaptureError::connection("the connection failed", error);
        self.writer.write_all(bytes).await.map_err(failed)?;
        self.writer.flush().await.map_err(failed)
    }
}

async fn within<T>(
    limit: Duration,
    work: impl Future<Output = Result<T, CaptureError>>,
) -> Result<T, CaptureError> {
    timeout(limit, work).await.unwrap_or_else(|_| {
        let limit = humantime::format_duration(limit);
        let message = format!("no answer from PostgreSQL within {limit}");
        Err(CaptureError::new(ErrorKind::Outage, message))
    })
}

/// The texts of a row.
fn row(frame: Frame) -> Result<Vec<Option<String>>, CaptureError> {
    let mut fields = Fields(frame.body);
    let columns = fields.i16()?;
    let mut row = Vec::new();
    for _ in 0..columns {
        row.push(match usize::try_from(fields.i32()?) {
            Ok(length) => Some(String::from_utf8_lossy(&fields.take(length)?).into_owned()),
            Err(_) => None,
        });
    }
    Ok(row)
}

fn unwritable(error: std::io::Error) -> CaptureError {
    CaptureError::new(
        ErrorKind::Operator,
        format!("cannot ask the server: {error}"),
    )
}

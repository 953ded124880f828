//! Frames of PostgreSQL's protocol: a letter, a length and a body.

use super::CaptureError;
use super::error::ServerAnswer;
use super::fields::Fields;
use super::shrink::{MAX_ROW, Shrinking};
use crate::store::ErrorKind;
use bytes::{Buf, Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadHalf, WriteHalf};

/// How much of the stream is read at a time.
const CHUNK: usize = 64 * 1024;

/// A connection to PostgreSQL, plain or encrypted.
pub(super) trait Socket: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Socket for T {}

/// The half that writes.
pub(super) type SocketWriter = WriteHalf<Box<dyn Socket>>;

/// One frame.
pub(super) struct Frame {
    pub(super) tag: u8,
    pub(super) body: Bytes,
}

/// The frames that arrive.
pub(super) struct FrameReader {
    socket: ReadHalf<Box<dyn Socket>>,
    buffer: BytesMut,
    /// The frame that arrives, if it is a large one.
    large: Option<Shrinking>,
}

impl FrameReader {
    pub(super) fn new(socket: ReadHalf<Box<dyn Socket>>) -> Self {
        Self {
            socket,
            buffer: BytesMut::new(),
            large: None,
        }
    }

    /// The next frame if it has arrived already.
    pub(super) fn arrived(&mut self) -> Result<Option<Frame>, CaptureError> {
        if let Some(large) = &mut self.large {
            let body = large.take(&mut self.buffer)?;
            return Ok(body.map(|body| {
                self.large = None;
                Frame { tag: b'd', body }
            }));
        }
        let Some((header, _)) = self.buffer.split_first_chunk::<5>() else {
            return Ok(None);
        };
        let [tag, length @ ..] = *header;
        let length = u32::from_be_bytes(length) as usize;
        match length {
            4..=MAX_ROW => {}
            _ if length > MAX_ROW && tag == b'd' => {
                self.buffer.advance(5);
                self.large = Some(Shrinking::new(length - 4));
                return self.arrived();
            }
            _ => {
                return Err(CaptureError::unreadable("a frame of impossible length"));
            }
        }
        if self.buffer.len() <= length {
            // The letter, and what is missing of the frame.
            self.buffer.reserve(length + 1 - self.buffer.len());
            return Ok(None);
        }
        let mut body = self.buffer.split_to(length + 1).freeze();
        body.advance(5);
        Ok(Some(Frame { tag, body }))
    }

    /// The next frame. Dropped before it is ready, nothing is lost.
    pub(super) async fn next(&mut self) -> Result<Frame, CaptureError> {
        loop {
            if let Some(frame) = self.arrived()? {
                return Ok(frame);
            }
            self.buffer.reserve(CHUNK);
            let read = self.socket.read_buf(&mut self.buffer).await;
            let read =
                read.map_err(|error| CaptureError::connection("the connection failed", error))?;
            if read == 0 {
                return Err(CaptureError::new(
                    ErrorKind::Outage,
                    "PostgreSQL has closed the connection",
                ));
            }
        }
    }
}

impl Frame {
    /// The fields of an error or a notice.
    pub(super) fn answer(self) -> Result<ServerAnswer, CaptureError> {
        let mut fields = Fields(self.body);
        let mut answer = ServerAnswer::default();
        loop {
            match fields.u8()? {
                0 => return Ok(answer),
                b'C' => answer.code = fields.text()?,
                b'M' => answer.message = fields.text()?,
                b'D' => answer.detail = Some(fields.text()?),
                _ => drop(fields.text()?),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::AsyncWriteExt;

    #[tokio::test]
    async fn frames_come_whole_however_they_arrive() {
        let (mut server, client) = tokio::io::duplex(7);
        let (reader, _writer) = tokio::io::split(Box::new(client) as Box<dyn Socket>);
        let mut frames = FrameReader::new(reader);
        let big = vec![b'x'; 200_000];
        let send = async {
            server.write_all(b"Z\0\0\0\x05I").await.unwrap();
            server.write_all(b"d\0\x03\x0d\x44").await.unwrap();
            server.write_all(&big).await.unwrap();
            drop(server);
        };
        let receive = async {
            let first = frames.next().await.unwrap();
            assert_eq!((first.tag, &first.body[..]), (b'Z', &b"I"[..]));
            let second = frames.next().await.unwrap();
            assert_eq!((second.tag, &second.body[..]), (b'd', &big[..]));
            let end = frames.next().await.map(|_| ()).unwrap_err();
            assert_eq!(end.kind(), ErrorKind::Outage);
        };
        tokio::join!(send, receive);
    }

    #[tokio::test]
    async fn an_impossible_length_is_refused() {
        let (mut server, client) = tokio::io::duplex(64);
        let (reader, _writer) = tokio::io::split(Box::new(client) as Box<dyn Socket>);
        server.write_all(b"HTTP/1.1 400 Bad").await.unwrap();
        server.write_all(b"X\0\0\0\0").await.unwrap();
        drop(server);
        let error = FrameReader::new(reader).next().await.map(|_| ());
        assert!(error.is_err());
    }

    #[test]
    fn an_error_is_read_by_its_fields() {
        let body = Bytes::from_static(b"SERROR\0C42704\0Mno such slot\0Dgone\0\0");
        let answer = Frame { tag: b'E', body }.answer().unwrap();
        assert_eq!(answer.code, "42704");
        assert_eq!(answer.to_string(), "no such slot (gone)");
        let cut = Bytes::from_static(b"SERROR\0C42704");
        assert!(
            Frame {
                tag: b'E',
                body: cut
            }
            .answer()
            .is_err()
        );
    }
}

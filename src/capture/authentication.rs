//! Proving to PostgreSQL who the client is: by password, in clear, as MD5 or by SCRAM.

use super::error::ServerAnswer;
use super::fields::Fields;
use super::frames::{Frame, FrameReader, SocketWriter};
use super::{CaptureError, CaptureFault};
use crate::store::ErrorKind;
use bytes::BytesMut;
use postgres_protocol::authentication::{md5_hash, sasl};
use postgres_protocol::message::frontend;
use tokio::io::AsyncWriteExt;

/// Answers what the server asks until it lets the client in.
///
/// Channel binding is not offered: the driver does not give away what the handshake of TLS has for it.
pub(super) async fn authenticate(
    frames: &mut FrameReader,
    writer: &mut SocketWriter,
    user: &str,
    password: Option<&[u8]>,
) -> Result<(), CaptureError> {
    let mut scram = None;
    loop {
        let mut fields = Fields(request(frames).await?.body);
        let mut answer = BytesMut::new();
        match fields.i32()? {
            0 => return Ok(()),
            3 => frontend::password_message(given(password)?, &mut answer).map_err(unwritable)?,
            5 => {
                let salt = fields.u32()?.to_be_bytes();
                let hash = md5_hash(user.as_bytes(), given(password)?, salt);
                frontend::password_message(hash.as_bytes(), &mut answer).map_err(unwritable)?;
            }
            10 => {
                offers_scram(&mut fields)?;
                let binding = sasl::ChannelBinding::unsupported();
                let exchange = sasl::ScramSha256::new(given(password)?, binding);
                let first = exchange.message();
                frontend::sasl_initial_response(sasl::SCRAM_SHA_256, first, &mut answer)
                    .map_err(unwritable)?;
                scram = Some(exchange);
            }
            11 => {
                let exchange = scram.as_mut().ok_or_else(out_of_order)?;
                exchange.update(&fields.0).map_err(refused)?;
                frontend::sasl_response(exchange.message(), &mut answer).map_err(unwritable)?;
            }
            12 => {
                let mut exchange = scram.take().ok_or_else(out_of_order)?;
                exchange.finish(&fields.0).map_err(refused)?;
                continue;
            }
            other => {
                return Err(CaptureError::operator(
                    CaptureFault::NoRight,
                    format!(
                        "PostgreSQL asks for authentication of kind {other} (GSSAPI, SSPI or older), which is not \
                         supported; let pg_hba.conf ask for scram-sha-256"
                    ),
                ));
            }
        }
        let sent = writer.write_all(&answer).await;
        sent.map_err(|error| CaptureError::connection("the connection failed", error))?;
    }
}

/// The next request, or the error that ends the conversation.
async fn request(frames: &mut FrameReader) -> Result<Frame, CaptureError> {
    let frame = frames.next().await?;
    match frame.tag {
        b'R' => Ok(frame),
        b'E' => {
            let answer: ServerAnswer = frame.answer()?;
            Err(CaptureError::server("cannot log in", &answer))
        }
        _ => Err(out_of_order()),
    }
}

fn given(password: Option<&[u8]>) -> Result<&[u8], CaptureError> {
    password.ok_or_else(|| {
        CaptureError::operator(
            CaptureFault::NoRight,
            "PostgreSQL asks for a password, and the URL has none",
        )
    })
}

fn offers_scram(fields: &mut Fields) -> Result<(), CaptureError> {
    loop {
        let mechanism = fields.text()?;
        if mechanism.is_empty() {
            return Err(CaptureError::new(
                ErrorKind::Operator,
                "PostgreSQL offers no authentication by SCRAM-SHA-256",
            ));
        }
        if mechanism == sasl::SCRAM_SHA_256 {
            return Ok(());
        }
    }
}

fn out_of_order() -> CaptureError {
    CaptureError::unreadable("a log-in in another order than the protocol's")
}

fn unwritable(error: std::io::Error) -> CaptureError {
    CaptureError::new(ErrorKind::Operator, format!("cannot log in: {error}"))
}

/// The server does not know the password either, or is another one.
fn refused(error: std::io::Error) -> CaptureError {
    CaptureError::operator(
        CaptureFault::NoRight,
        format!("cannot log in by SCRAM: {error}; check the password in the URL"),
    )
}

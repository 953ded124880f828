//! Reading of the fields of binary messages.

use super::{CaptureError, Lsn};
use bytes::{Buf, Bytes};
use chrono::{DateTime, TimeDelta, Utc};

/// The time from which PostgreSQL counts microseconds: 2000-01-01, in microseconds of Unix time.
pub(super) const EPOCH_MICROS: i64 = 946_684_800_000_000;

/// The fields of a message that are not read yet.
pub(super) struct Fields(pub(super) Bytes);

impl Fields {
    pub(super) fn u8(&mut self) -> Result<u8, CaptureError> {
        self.0.try_get_u8().map_err(|_| cut())
    }

    pub(super) fn u16(&mut self) -> Result<u16, CaptureError> {
        self.0.try_get_u16().map_err(|_| cut())
    }

    pub(super) fn i16(&mut self) -> Result<i16, CaptureError> {
        self.0.try_get_i16().map_err(|_| cut())
    }

    pub(super) fn u32(&mut self) -> Result<u32, CaptureError> {
        self.0.try_get_u32().map_err(|_| cut())
    }

    pub(super) fn i32(&mut self) -> Result<i32, CaptureError> {
        self.0.try_get_i32().map_err(|_| cut())
    }

    pub(super) fn lsn(&mut self) -> Result<Lsn, CaptureError> {
        self.0.try_get_u64().map(Lsn).map_err(|_| cut())
    }

    pub(super) fn time(&mut self) -> Result<DateTime<Utc>, CaptureError> {
        let micros = self.0.try_get_i64().map_err(|_| cut())?;
        DateTime::UNIX_EPOCH
            .checked_add_signed(TimeDelta::microseconds(micros.saturating_add(EPOCH_MICROS)))
            .ok_or_else(|| CaptureError::unreadable("a time that no calendar has"))
    }

    /// The next `length` bytes, which share the memory of the message.
    pub(super) fn take(&mut self, length: usize) -> Result<Bytes, CaptureError> {
        if length > self.0.len() {
            return Err(cut());
        }
        Ok(self.0.split_to(length))
    }

    /// The text up to the next zero byte.
    pub(super) fn text(&mut self) -> Result<String, CaptureError> {
        let end = memchr::memchr(0, &self.0).ok_or_else(cut)?;
        let text = self.0.split_to(end);
        self.0.advance(1);
        String::from_utf8(text.to_vec()).map_err(|_| CaptureError::unreadable("a name in no UTF-8"))
    }
}

fn cut() -> CaptureError {
    CaptureError::unreadable("a message that ends too early")
}

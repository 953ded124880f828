//! Rows that are too large for any event: their frames without the values that make them so.

use super::CaptureError;
use bytes::{Buf, BufMut, Bytes, BytesMut};

/// What a frame with a row may have. A row can have a gigabyte, and must not take as much memory.
pub(super) const MAX_ROW: usize = 16 << 20;

/// Marks a value that was left out; its length follows.
pub(super) const OMITTED: u8 = b'o';

/// `w`, two places and a time.
const HEAD: usize = 25;

/// What comes next in the frame.
enum Next {
    /// The letter of the message, and what every row's message begins with.
    Message,
    /// The letter of a row, behind which is its number of columns.
    Row,
    /// A column.
    Column,
    /// So many bytes of a value.
    Value { left: usize, keep: bool },
    /// The end of what has no rows.
    Rest,
}

/// A large frame that arrives piece by piece.
pub(super) struct Shrinking {
    /// Bytes of the frame that have not arrived.
    left: usize,
    /// What remains of it.
    kept: BytesMut,
    next: Next,
    columns: u16,
}

impl Shrinking {
    /// A frame whose body has `length` bytes.
    pub(super) fn new(length: usize) -> Self {
        Self {
            left: length,
            kept: BytesMut::new(),
            next: Next::Message,
            columns: 0,
        }
    }

    /// Takes what has arrived, and gives the body when all of it has.
    pub(super) fn take(&mut self, arrived: &mut BytesMut) -> Result<Option<Bytes>, CaptureError> {
        while self.left > 0 {
            let before = arrived.len();
            if !self.step(arrived)? {
                return Ok(None);
            }
            let taken = before - arrived.len();
            self.left = self.left.checked_sub(taken).ok_or_else(broken)?;
        }
        Ok(Some(std::mem::take(&mut self.kept).freeze()))
    }

    /// Takes the next piece; `false` if more must arrive first.
    fn step(&mut self, arrived: &mut BytesMut) -> Result<bool, CaptureError> {
        match &mut self.next {
            Next::Message => {
                // The letter and the number of the table.
                let Some(head) = arrived.get(..HEAD + 5) else {
                    return Ok(false);
                };
                let has_rows = head.first() == Some(&b'w')
                    && matches!(head.get(HEAD), Some(b'I' | b'U' | b'D'));
                self.next = if has_rows { Next::Row } else { Next::Rest };
                self.keep(arrived, HEAD + 5);
            }
            Next::Row => {
                let Some([_, high, low]) = arrived.first_chunk::<3>() else {
                    return Ok(false);
                };
                self.columns = u16::from_be_bytes([*high, *low]);
                self.next = self.behind_a_column();
                self.keep(arrived, 3);
            }
            Next::Column => {
                let Some((&kind, behind)) = arrived.split_first() else {
                    return Ok(false);
                };
                self.columns = self.columns.saturating_sub(1);
                if kind != b't' {
                    self.next = self.behind_a_column();
                    self.keep(arrived, 1);
                    return Ok(true);
                }
                let Some(length) = behind.first_chunk::<4>() else {
                    self.columns += 1;
                    return Ok(false);
                };
                let left = u32::from_be_bytes(*length) as usize;
                let keep = self.kept.len() + left <= MAX_ROW;
                self.kept.put_u8(if keep { kind } else { OMITTED });
                self.kept.put_slice(length);
                arrived.advance(5);
                self.next = Next::Value { left, keep };
            }
            Next::Value { left: 0, .. } => self.next = self.behind_a_column(),
            Next::Value { left, keep } => {
                let length = arrived.len().min(*left);
                let keep = *keep;
                *left -= length;
                if keep {
                    self.keep(arrived, length);
                } else {
                    arrived.advance(length);
                }
                return Ok(length > 0);
            }
            // Of a message of another program the beginning says whose it is.
            Next::Rest => {
                let length = arrived.len().min(self.left);
                let room = MAX_ROW.saturating_sub(self.kept.len()).min(length);
                self.keep(arrived, room);
                arrived.advance(length - room);
                return Ok(length > 0);
            }
        }
        Ok(true)
    }

    fn keep(&mut self, arrived: &mut BytesMut, length: usize) {
        self.kept.put(arrived.split_to(length));
    }

    fn behind_a_column(&self) -> Next {
        if self.columns > 0 {
            Next::Column
        } else {
            Next::Row
        }
    }
}

fn broken() -> CaptureError {
    CaptureError::unreadable("a row that is longer than its frame")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn column(text: &[u8]) -> Vec<u8> {
        let length = u32::try_from(text.len()).unwrap();
        [b"t", &length.to_be_bytes()[..], text].concat()
    }

    #[test]
    fn a_large_row_keeps_its_small_values() {
        let large = vec![b'x'; MAX_ROW + 1];
        let head = [b"w", &[7; HEAD - 1][..], b"U\0\0\0\x09"].concat();
        let old = [b"K\0\x02", &column(b"1")[..], b"n"].concat();
        let new = |omit: bool| {
            let body = if omit {
                [&[OMITTED], &column(&large)[1..5]].concat()
            } else {
                column(&large)
            };
            [b"N\0\x03", &column(b"1")[..], &body, b"u"].concat()
        };
        let frame = [&head[..], &old, &new(false)].concat();
        let shrunk = [&head[..], &old, &new(true)].concat();
        for piece in [1_000_003, 7_777_777, frame.len()] {
            let mut shrinking = Shrinking::new(frame.len());
            let (mut arrived, mut body) = (BytesMut::new(), None);
            for (at, bytes) in frame.chunks(piece).enumerate() {
                // The first bytes come one by one.
                let slow = if at == 0 { 100.min(bytes.len()) } else { 0 };
                for byte in &bytes[..slow] {
                    arrived.put_u8(*byte);
                    assert!(shrinking.take(&mut arrived).unwrap().is_none());
                }
                arrived.put_slice(&bytes[slow..]);
                body = shrinking.take(&mut arrived).unwrap();
            }
            assert_eq!(body.as_deref(), Some(&shrunk[..]));
            assert!(arrived.is_empty());
        }
    }

    #[test]
    fn a_large_message_of_another_program_keeps_its_beginning() {
        let frame = [b"w", &[7; HEAD - 1][..], b"M", &vec![1; 2 * MAX_ROW]].concat();
        let mut arrived = BytesMut::from(&frame[..]);
        let body = Shrinking::new(frame.len()).take(&mut arrived).unwrap();
        assert_eq!(body.unwrap()[..], frame[..MAX_ROW]);
    }
}

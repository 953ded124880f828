//! The body of an answer with messages, which counts in the budget of answers until it is sent.
//!
//! A client that does not read holds its answer in memory. The connection takes a body in parts, as its buffer empties,
//! and drops it behind the last one, or when the client is gone.

use crate::event::budget::Permit;
use actix_web::body::{BodySize, MessageBody};
use actix_web::web::Bytes;
use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};

/// Bytes that the connection gets at a time. It copies them, so the whole body at once would be there twice.
const PART: usize = 64 * 1024;

/// A body and its bytes of the budget.
pub(super) struct Charged {
    left: Bytes,
    _permit: Permit,
}

impl Charged {
    pub(super) fn new(body: String, permit: Permit) -> Self {
        Self {
            left: Bytes::from(body),
            _permit: permit,
        }
    }
}

impl MessageBody for Charged {
    type Error = Infallible;

    fn size(&self) -> BodySize {
        BodySize::Sized(self.left.len() as u64)
    }

    fn poll_next(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Bytes, Infallible>>> {
        if self.left.is_empty() {
            return Poll::Ready(None);
        }
        let part = self.left.len().min(PART);
        Poll::Ready(Some(Ok(self.left.split_to(part))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::budget::Budget;
    use futures::future::poll_fn;

    #[tokio::test]
    async fn a_body_is_sent_in_parts_and_holds_its_bytes_until_it_is_dropped() {
        let budget = Budget::new(1_000_000);
        let text: String = ('a'..='z').cycle().take(2 * PART + 5).collect();
        let permit = budget.try_take(text.len()).unwrap();
        let mut body = Charged::new(text.clone(), permit);
        assert_eq!(body.size(), BodySize::Sized(text.len() as u64));
        let mut parts = Vec::new();
        while let Some(part) = poll_fn(|cx| Pin::new(&mut body).poll_next(cx)).await {
            parts.push(part.unwrap());
        }
        let lengths: Vec<usize> = parts.iter().map(Bytes::len).collect();
        assert_eq!(lengths, [PART, PART, 5]);
        assert_eq!(parts.concat(), text.as_bytes());
        assert_eq!(budget.used(), text.len());
        drop(body);
        assert_eq!(budget.used(), 0);
    }
}

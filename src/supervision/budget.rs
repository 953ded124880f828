//! One bound on the bytes of all events on their way through the process.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

struct Inner {
    limit: usize,
    used: AtomicUsize,
}

/// The budget; clones share it.
#[derive(Clone)]
pub struct Budget {
    inner: Arc<Inner>,
}

impl Budget {
    /// At most `limit` bytes.
    pub fn new(limit: usize) -> Self {
        Self {
            inner: Arc::new(Inner {
                limit,
                used: AtomicUsize::new(0),
            }),
        }
    }

    /// Bytes in use now.
    pub fn used(&self) -> usize {
        self.inner.used.load(Ordering::Acquire)
    }

    /// Bytes for a request, if there is room.
    pub fn try_take(&self, bytes: usize) -> Option<Permit> {
        self.inner
            .used
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, |used| {
                used.checked_add(bytes)
                    .filter(|sum| *sum <= self.inner.limit)
            })
            .ok()?;
        Some(self.permit(bytes))
    }

    /// Bytes for a message the broker has already sent: it is in memory whatever the bound says.
    /// Prefetch keeps these within the bound; see `broker.prefetch`.
    pub fn take(&self, bytes: usize) -> Permit {
        self.inner.used.fetch_add(bytes, Ordering::AcqRel);
        self.permit(bytes)
    }

    /// A permit for nothing yet, to grow with what arrives.
    pub fn begin(&self) -> Permit {
        self.permit(0)
    }

    fn permit(&self, bytes: usize) -> Permit {
        Permit {
            inner: Arc::clone(&self.inner),
            bytes,
        }
    }
}

impl Permit {
    /// Bytes it covers.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// More bytes, if there is room; `false` leaves the permit as it was.
    pub fn try_grow(&mut self, bytes: usize) -> bool {
        let budget = Budget {
            inner: Arc::clone(&self.inner),
        };
        let Some(mut more) = budget.try_take(bytes) else {
            return false;
        };
        self.bytes += std::mem::take(&mut more.bytes);
        true
    }

    /// Covers this many bytes from now on, if there is room; `false` leaves the permit as it was.
    pub fn try_resize(&mut self, bytes: usize) -> bool {
        match bytes.checked_sub(self.bytes) {
            Some(more) => self.try_grow(more),
            None => {
                let less = self.bytes - bytes;
                self.inner.used.fetch_sub(less, Ordering::AcqRel);
                self.bytes = bytes;
                true
            }
        }
    }
}

/// Bytes in use; dropping it gives them back.
pub struct Permit {
    inner: Arc<Inner>,
    bytes: usize,
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.inner.used.fetch_sub(self.bytes, Ordering::AcqRel);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_does_not_fit_is_refused_until_there_is_room() {
        let budget = Budget::new(100);
        let first = budget.try_take(60).unwrap();
        assert!(budget.try_take(60).is_none());
        let forced = budget.take(60);
        assert_eq!(budget.used(), 120);
        drop(first);
        assert!(budget.try_take(60).is_none());
        let mut growing = budget.begin();
        assert!(growing.try_grow(30) && !growing.try_grow(30));
        assert_eq!(budget.used(), 90);
        assert!(!growing.try_resize(41) && growing.try_resize(40) && growing.try_resize(5));
        assert_eq!(budget.used(), 65);
        drop(growing);
        drop(forced);
        assert!(budget.try_take(100).is_some());
        assert_eq!(budget.used(), 0);
    }
}

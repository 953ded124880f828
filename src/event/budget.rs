//! The memory budget: one bound on the bytes of all events in flight in the process.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

#[derive(Debug)]
struct BudgetInner {
    limit: usize,
    used: AtomicUsize,
}

/// A budget of bytes; clones share it.
#[derive(Clone)]
pub struct Budget {
    inner: Arc<BudgetInner>,
}

impl Budget {
    /// A budget of at most `limit` bytes.
    pub fn new(limit: usize) -> Self {
        Self {
            inner: Arc::new(BudgetInner {
                limit,
                used: AtomicUsize::new(0),
            }),
        }
    }

    pub fn used(&self) -> usize {
        self.inner.used.load(Ordering::Acquire)
    }

    /// Takes bytes for a request; `None` when the budget is exhausted.
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

    /// Takes bytes for what cannot be made smaller: if it is larger than the whole budget, all of that.
    pub fn try_take_alone(&self, bytes: usize) -> Option<Permit> {
        self.try_take(bytes.min(self.inner.limit))
    }

    /// Takes bytes for a message that the broker has already sent, also beyond the limit. Prefetch
    /// keeps these messages within it; see `broker.prefetch`.
    pub fn take(&self, bytes: usize) -> Permit {
        self.inner.used.fetch_add(bytes, Ordering::AcqRel);
        self.permit(bytes)
    }

    /// A permit of zero bytes, to be grown.
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
    /// Bytes that the permit covers.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Adds bytes; `false` leaves the permit unchanged when the budget is exhausted.
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

    /// Sets the permit to `bytes`; `false` leaves it unchanged when the budget is exhausted.
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

/// Bytes taken from a [`Budget`]; dropping the permit returns them.
#[derive(Debug)]
pub struct Permit {
    inner: Arc<BudgetInner>,
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
    fn requests_beyond_the_limit_are_refused_until_bytes_return() {
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

    #[test]
    fn what_is_larger_than_the_budget_takes_all_of_it() {
        let budget = Budget::new(100);
        let part = budget.try_take_alone(60).unwrap();
        assert!(budget.try_take_alone(101).is_none());
        drop(part);
        let all = budget.try_take_alone(101).unwrap();
        assert_eq!((all.bytes(), budget.used()), (100, 100));
        assert!(budget.try_take_alone(1).is_none());
    }
}

//! Answers to the requests of one HTTP worker's thread.
//!
//! A batch settles the events of many requests at once, on the writer's thread. Waking each request
//! from there would cost a system call apiece; so answers gather here, and the worker's thread is
//! woken once for all of them.

use crate::event::Outcome;
use parking_lot::Mutex;
use std::sync::Arc;
use tokio::sync::{Notify, oneshot};

/// A request's outcomes, and the channel to it.
type Completion = (oneshot::Sender<Vec<Outcome>>, Vec<Outcome>);

#[derive(Default)]
struct CompletionsInner {
    ready: Mutex<Vec<Completion>>,
    arrived: Notify,
}

/// The answers for one thread; clones share them.
#[derive(Clone, Default)]
pub struct Completions {
    inner: Arc<CompletionsInner>,
}

impl Completions {
    /// Adds an answer, from any thread.
    pub(super) fn push(&self, answer: oneshot::Sender<Vec<Outcome>>, outcomes: Vec<Outcome>) {
        let first = {
            let mut ready = self.inner.ready.lock();
            ready.push((answer, outcomes));
            ready.len() == 1
        };
        if first {
            self.inner.arrived.notify_one();
        }
    }

    /// Hands out answers for as long as it is polled, on the thread that waits for them. Answers
    /// that arrive while it is not polled are handed out by the next call.
    pub async fn hand_out(&self) {
        let mut taken = Vec::new();
        // The previous call may have ended between the wake-up and the answers.
        self.inner.arrived.notify_one();
        loop {
            self.inner.arrived.notified().await;
            std::mem::swap(&mut taken, &mut *self.inner.ready.lock());
            for (answer, outcomes) in taken.drain(..) {
                // The caller may have gone; the events are settled all the same.
                let _ = answer.send(outcomes);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::FutureExt;

    #[tokio::test]
    async fn answers_are_handed_out_by_the_next_call_after_one_has_ended() {
        let completions = Completions::default();
        let open = |outcome| {
            let (answer, receiver) = oneshot::channel();
            completions.push(answer, vec![outcome]);
            receiver
        };
        let (mut first, mut second) = (open(Outcome::Stored), open(Outcome::Duplicate));
        assert!(first.try_recv().is_err(), "not handed out yet");
        assert!(completions.hand_out().now_or_never().is_none());
        assert_eq!(first.try_recv().unwrap(), [Outcome::Stored]);
        assert_eq!(second.try_recv().unwrap(), [Outcome::Duplicate]);
        let mut third = open(Outcome::Published);
        assert!(completions.hand_out().now_or_never().is_none());
        assert_eq!(third.try_recv().unwrap(), [Outcome::Published]);
    }
}
